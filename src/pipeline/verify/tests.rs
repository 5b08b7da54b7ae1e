use super::signature::SIGNATURE;
use super::*;
use crate::domain::artifact::{Descriptor, OCI_MANIFEST};
use crate::domain::trust::testing::{authority, bundle, legacy, revision, sign_statement, signer, statement, trusting};
use crate::domain::trust::{Evidence, MAX_BUNDLE_BYTES, MAX_SIGNATURE_CHARS};
use crate::pipeline::in_memory_registry::{InMemoryRegistry, Method};
use rstest::rstest;
use serde_json::{Value, json};
use sigstore_verify::crypto::KeyPair;
use std::collections::BTreeMap;
use std::time::Duration;

const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// A registry and the image in it that is to be verified.
struct Case {
    registry: InMemoryRegistry,
    revision: ImageRevision,
    pair: KeyPair,
}

impl Case {
    fn new() -> Self {
        let case = Self {
            registry: InMemoryRegistry::default(),
            revision: revision(b"image"),
            pair: signer(),
        };
        case.registry
            .put_manifest(&case.revision.repository, OCI_MANIFEST, b"image");
        case
    }

    fn layer(&self, media_type: &str, bytes: &[u8], signature: Option<&str>) -> Value {
        let digest = self.registry.put_blob(&self.revision.repository, bytes);
        let annotations: BTreeMap<&str, &str> = signature.map(|signature| (SIGNATURE, signature)).into_iter().collect();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len(), "annotations": annotations })
    }

    /// Attaches a manifest with these layers that says it is about `subject`.
    fn refer(&self, subject: &Digest, layers: &[Value]) -> Digest {
        let subject = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 5 });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": EMPTY_TYPE,
            "config": { "mediaType": EMPTY_TYPE, "digest": Digest::of(b"{}"), "size": 2 },
            "layers": layers, "subject": subject,
        });
        let repository = &self.revision.repository;
        let digest = self
            .registry
            .put_manifest(repository, OCI_MANIFEST, manifest.to_string().as_bytes());
        self.list(digest);
        digest
    }

    fn list(&self, digest: Digest) {
        let listed = Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest,
            size: 1,
            artifact_type: Some(EMPTY_TYPE.to_owned()),
            annotations: BTreeMap::new(),
        };
        self.registry
            .put_referrer(&self.revision.repository, self.revision.digest, listed);
    }

    fn attach(&self, evidence: &Evidence) {
        match evidence {
            Evidence::SigstoreBundle(json) => {
                let layer = self.layer(SIGSTORE_BUNDLE_LAYER, json, None);
                self.refer(&self.revision.digest, &[layer]);
            }
            Evidence::SimpleSigning { payload, signature } => {
                let layers = vec![self.layer(PAYLOAD_LAYER, payload, Some(signature))];
                self.tag(&json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers }));
            }
            Evidence::Unusable(fault) => panic!("{fault}"),
        }
    }

    fn tag(&self, manifest: &Value) {
        let repository = &self.revision.repository;
        let digest = self
            .registry
            .put_manifest(repository, OCI_MANIFEST, manifest.to_string().as_bytes());
        self.registry
            .put_tag(repository, Tag::cosign_signatures(&self.revision.digest), digest);
    }

    fn source(&self) -> ImageSource {
        let image = self.revision.to_string().parse().unwrap();
        ImageSource::new(&image, None, RegistryAccess::default()).unwrap()
    }

    async fn verify_by(&self, policy: &TrustPolicy) -> Result<Verified<ImageRevision>, VerifyError> {
        let blocking = BlockingWork::default();
        verify(&self.registry, &self.source(), &self.revision, policy, &blocking).await
    }

    async fn verify(&self) -> Result<Verified<ImageRevision>, VerifyError> {
        self.verify_by(&trusting(&self.pair)).await
    }

    async fn reason(&self) -> Reason {
        self.verify().await.unwrap_err().reason()
    }
}

fn unavailable() -> RegistryError {
    RegistryError::Unavailable {
        host: "registry.example".into(),
        resource: "x".into(),
        status: 503,
    }
}

#[tokio::test]
async fn a_bundle_suffices_and_the_legacy_tag_is_not_asked_for() {
    let case = Case::new();
    case.attach(&bundle(&case.pair, &case.revision.digest));
    assert_eq!(case.verify().await.unwrap().value(), &case.revision);
    assert_eq!(case.registry.calls(Method::Manifest), 1);
}

#[tokio::test]
async fn a_legacy_signature_suffices_and_both_forms_count_together() {
    let case = Case::new();
    case.attach(&legacy(&case.pair, &case.revision.digest));
    assert!(case.verify().await.is_ok());
    let other = signer();
    let authorities = vec![authority("a", &[&case.pair]), authority("b", &[&other])];
    let policy = TrustPolicy::signed_by(authorities, 2).unwrap();
    assert_eq!(
        case.verify_by(&policy).await.unwrap_err().reason(),
        Reason::SignatureMismatch
    );
    case.attach(&bundle(&other, &case.revision.digest));
    assert!(case.verify_by(&policy).await.is_ok());
}

#[tokio::test]
async fn no_policy_asks_nothing() {
    let case = Case::new();
    case.registry.fail(Method::Referrers, Some(unavailable()));
    assert!(case.verify_by(&TrustPolicy::NotConfigured).await.is_ok());
    assert_eq!(case.registry.calls(Method::Referrers), 0);
}

#[tokio::test]
async fn no_signature_is_unsigned_and_worth_another_try() {
    let error = Case::new().verify().await.unwrap_err();
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::Unsigned, Disposition::Retry)
    );
}

/// A signature of one image, copied under another.
#[tokio::test]
async fn a_signature_of_another_digest_is_a_mismatch() {
    let case = Case::new();
    let other = Digest::of(b"other");
    case.attach(&bundle(&case.pair, &other));
    case.attach(&legacy(&case.pair, &other));
    let error = case.verify().await.unwrap_err();
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::SignatureMismatch, Disposition::Stalled)
    );
}

#[tokio::test]
async fn attestations_and_referrers_of_something_else_are_no_signatures() {
    let case = Case::new();
    let mut sbom = statement(&case.revision.digest);
    sbom["predicateType"] = "https://spdx.dev/Document".into();
    case.attach(&sign_statement(&case.pair, &sbom));
    assert_eq!(case.reason().await, Reason::SignatureMismatch);
    let case = Case::new();
    let Evidence::SigstoreBundle(json) = bundle(&case.pair, &case.revision.digest) else {
        panic!()
    };
    let layer = case.layer(SIGSTORE_BUNDLE_LAYER, &json, None);
    case.refer(&Digest::of(b"other"), &[layer]);
    let junk = case
        .registry
        .put_manifest(&case.revision.repository, OCI_MANIFEST, b"junk");
    case.list(junk);
    case.refer(&case.revision.digest, &[case.layer("text/plain", &json, None)]);
    assert_eq!(case.reason().await, Reason::Unsigned);
}

#[rstest]
#[case::referrers(Method::Referrers)]
#[case::manifest(Method::Manifest)]
#[case::blob(Method::Blob)]
#[tokio::test]
async fn what_cannot_be_asked_is_unknown_and_not_absent(#[case] method: Method) {
    let case = Case::new();
    // The legacy signature alone would do; it must not be reached over an unanswered question.
    case.attach(&bundle(&signer(), &case.revision.digest));
    case.attach(&legacy(&case.pair, &case.revision.digest));
    case.registry.fail(method, Some(unavailable()));
    let error = case.verify().await.unwrap_err();
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::VerificationUnavailable, Disposition::Retry)
    );
    case.registry.fail(method, None);
    assert!(case.verify().await.is_ok());
}

#[tokio::test]
async fn a_signature_that_is_listed_and_not_there_is_unknown_but_hides_no_other() {
    let case = Case::new();
    case.list(Digest::of(b"gone"));
    assert_eq!(case.reason().await, Reason::VerificationUnavailable);
    case.attach(&bundle(&case.pair, &case.revision.digest));
    assert!(case.verify().await.is_ok());
}

#[tokio::test]
async fn a_registry_that_limits_or_denies_keeps_its_reason() {
    let case = Case::new();
    let (host, repository, credentials) = ("registry.example".to_owned(), "acme/policy".to_owned(), "none");
    let limited = RegistryError::RateLimited {
        host: host.clone(),
        wait: Duration::from_secs(7),
    };
    case.registry.fail(Method::Referrers, Some(limited));
    let error = case.verify().await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::WaitFor(Duration::from_secs(7)));
    case.registry.fail(
        Method::Referrers,
        Some(RegistryError::Denied {
            host,
            repository,
            credentials,
        }),
    );
    assert_eq!(case.reason().await, Reason::AccessDenied);
}

#[tokio::test]
async fn many_and_large_signatures_are_cut_off() {
    let case = Case::new();
    for number in 0..80 {
        let layer = case.layer(SIGSTORE_BUNDLE_LAYER, format!("{number}").as_bytes(), None);
        case.refer(&case.revision.digest, &[layer]);
    }
    assert_eq!(case.reason().await, Reason::SignatureMismatch);
    assert_eq!(case.registry.calls(Method::Blob), MAX_SIGNATURES);
    let case = Case::new();
    let large = |size: usize| case.layer(SIGSTORE_BUNDLE_LAYER, &vec![b' '; size], None);
    let layers: Vec<Value> = (0..10).map(|index| large(MAX_BUNDLE_BYTES - index)).collect();
    case.refer(&case.revision.digest, &[large(MAX_BUNDLE_BYTES + 1)]);
    case.refer(&case.revision.digest, &layers);
    let found = fetch(&case.registry, Stage::SigstoreBundles, &case.source(), &case.revision)
        .await
        .unwrap();
    assert_eq!((found.signatures.len(), case.registry.calls(Method::Blob)), (9, 8));
}

#[test]
fn nothing_else_of_a_manifest_is_kept_while_its_signatures_are_fetched() {
    let layer = |media_type: &str, signature: &str| {
        let text = "x".repeat(1000);
        json!({
            "mediaType": media_type, "digest": Digest::of(b"1"), "size": 1, "artifactType": text,
            "annotations": { "other": text, SIGNATURE: signature },
        })
    };
    let too_long = "A".repeat(MAX_SIGNATURE_CHARS + 1);
    let layers = [
        layer(PAYLOAD_LAYER, "c2ln"),
        layer("text/plain", ""),
        layer(PAYLOAD_LAYER, &too_long),
        json!({ "mediaType": PAYLOAD_LAYER, "digest": Digest::of(b"1"), "size": 1 }),
    ];
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers }).to_string();
    let manifest = RawManifest {
        digest: Digest::of(manifest.as_bytes()),
        media_type: OCI_MANIFEST.to_owned(),
        bytes: manifest.into_bytes(),
    };
    let listed = list(manifest, None, PAYLOAD_LAYER);
    let [Ok(SignatureLayer { layer, .. }), too_long, without] = listed.as_slice() else {
        panic!("{listed:?}")
    };
    assert_eq!((&layer.artifact_type, layer.annotations.len()), (&None, 0));
    assert_eq!((too_long, without), (&Err(Fault::TooLarge), &Err(Fault::Format)));
    assert!(format!("{listed:?}").len() < 1000);
}

/// What was on disk and is there no more.
#[derive(Debug)]
struct Evicted;

impl crate::domain::bundle::Content for Evicted {
    fn size(&self) -> u64 {
        1
    }

    fn open(&self) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

#[tokio::test]
async fn evidence_that_cannot_be_read_is_no_lack_of_signatures() {
    let case = Case::new();
    let layer = Descriptor {
        media_type: SIGSTORE_BUNDLE_LAYER.to_owned(),
        digest: Digest::of(b"1"),
        size: 1,
        artifact_type: None,
        annotations: BTreeMap::new(),
    };
    let listed = SignatureLayer::of(layer).unwrap().unwrap();
    let signature = listed.stored(std::sync::Arc::new(Evicted));
    let policy = trusting(&case.pair);
    let decision = decide(
        &BlockingWork::default(),
        &Tenant::default(),
        &policy,
        &case.revision,
        vec![signature],
    )
    .await;
    let decision = decision.unwrap();
    assert!(decision.verdict.is_err());
    assert!(matches!(decision.unreadable, Some(RegistryError::Storage { .. })));
}
