//! The formats that we read, as the real programs write them: signatures by cosign, bundles by OPA and tar.

use std::collections::BTreeMap;

use policy_operator::domain::access::RegistryAccess;
use policy_operator::domain::artifact::{BUNDLE_LAYER, Descriptor, ImageOrIndex, OCI_MANIFEST};
use policy_operator::domain::bundle::{BundleFacts, Limits};
use policy_operator::domain::cancellation::CancellationToken;
use policy_operator::domain::digest::Digest;
use policy_operator::domain::reference::{ImageReference, Repository, Tag};
use policy_operator::domain::revision::ImageRevision;
use policy_operator::domain::source::ImageSource;
use policy_operator::domain::trust::{Authority, PublicKey, TrustPolicy, Verification, Verified};
use policy_operator::pipeline::blocking::BlockingWork;
use policy_operator::pipeline::in_memory_registry::InMemoryRegistry;
use policy_operator::pipeline::ports::Registry as _;
use policy_operator::pipeline::reason::{Classify as _, Reason};
use policy_operator::pipeline::verify::{VerifyError, verify};
use policy_operator_harness::cosign::{Format, Keys, Kind, sign};
use policy_operator_harness::image::{Bundle, PolicyImage, Pushed};
use policy_operator_harness::process::Program;
use policy_operator_harness::registry::{Distribution, DistributionOptions, Endpoint};
use policy_operator_harness::run_directory::RunDirectory;
use policy_operator_harness::{opa, tools};
use rstest::rstest;
use serde_json::{Value, json};

const LIMIT: std::time::Duration = std::time::Duration::from_mins(1);

/// Copies an image's manifest and everything that cosign put beside it out of a registry without a referrers API.
struct Mirror<'a> {
    from: &'a Endpoint,
    repository: Repository,
    to: InMemoryRegistry,
}

impl Mirror<'_> {
    async fn get(&self, kind: &str, name: &str) -> Option<Vec<u8>> {
        let url = self.from.url(&format!("{}/{kind}/{name}", self.repository.path()));
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        let response = self
            .from
            .client()
            .get(url)
            .header("accept", accept)
            .send()
            .await
            .unwrap();
        response.status().is_success().then_some(())?;
        Some(response.bytes().await.unwrap().to_vec())
    }

    async fn manifest(&self, name: &str) -> Option<(Digest, Value)> {
        let bytes = self.get("manifests", name).await?;
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let blob = self.get("blobs", layer["digest"].as_str().unwrap()).await.unwrap();
            self.to.put_blob(&self.repository, &blob);
        }
        Some((self.to.put_manifest(&self.repository, OCI_MANIFEST, &bytes), manifest))
    }

    async fn all(&self, digest: &Digest) {
        self.manifest(&digest.to_string()).await.unwrap();
        if let Some((_, index)) = self.manifest(Tag::referrers_fallback(digest).as_str()).await {
            for entry in index["manifests"].as_array().unwrap() {
                let (found, _) = self.manifest(entry["digest"].as_str().unwrap()).await.unwrap();
                let listed = descriptor(
                    entry["mediaType"].as_str().unwrap(),
                    found,
                    entry["size"].as_u64().unwrap(),
                );
                self.to.put_referrer(&self.repository, *digest, listed);
            }
        }
        let tag = Tag::cosign_signatures(digest);
        if let Some((found, _)) = self.manifest(tag.as_str()).await {
            self.to.put_tag(&self.repository, tag, found);
        }
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        artifact_type: None,
        annotations: BTreeMap::new(),
    }
}

fn revision(pushed: &Pushed) -> ImageRevision {
    let reference: ImageReference = pushed.reference.parse().unwrap();
    ImageRevision {
        repository: reference.repository().clone(),
        digest: pushed.digest.parse().unwrap(),
        tag: reference.tag().cloned(),
    }
}

fn trusting(name: &str, keys: &Keys) -> Authority {
    Authority {
        name: name.to_owned(),
        keys: PublicKey::from_pem(&keys.public_pem).unwrap(),
    }
}

async fn verdict(
    registry: &Distribution,
    pushed: &Pushed,
    policy: &TrustPolicy,
) -> Result<Verified<ImageRevision>, VerifyError> {
    let revision = revision(pushed);
    let mirror = Mirror {
        from: registry.endpoint(),
        repository: revision.repository.clone(),
        to: InMemoryRegistry::default(),
    };
    mirror.all(&revision.digest).await;
    let image = revision.to_string().parse().unwrap();
    let source = ImageSource::new(&image, None, RegistryAccess::default()).unwrap();
    verify(&mirror.to, &source, &revision, policy, &BlockingWork::default()).await
}

#[rstest]
#[case::p256_bundle(Kind::P256, Format::Bundle)]
#[case::p256_legacy(Kind::P256, Format::Legacy)]
#[case::p384_bundle(Kind::P384, Format::Bundle)]
#[case::p384_legacy(Kind::P384, Format::Legacy)]
#[case::rsa_bundle(Kind::Rsa, Format::Bundle)]
#[case::rsa_legacy(Kind::Rsa, Format::Legacy)]
#[case::ed25519_bundle(Kind::Ed25519, Format::Bundle)]
#[case::ed25519_legacy(Kind::Ed25519, Format::Legacy)]
#[tokio::test]
async fn what_cosign_signs_is_verified(#[case] kind: Kind, #[case] format: Format) {
    let registry = Distribution::start(DistributionOptions::default()).await.unwrap();
    let image = PolicyImage::new(Bundle::answering("yes").unwrap());
    let pushed = image.push(registry.endpoint(), "acme/policy", "1.0").await.unwrap();
    let (keys, stranger) = (
        Keys::generate(kind).await.unwrap(),
        Keys::generate(Kind::P256).await.unwrap(),
    );
    let policy = TrustPolicy::signed_by(vec![trusting("release", &keys)], 1).unwrap();

    let error = verdict(&registry, &pushed, &policy).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unsigned, "{error}");
    sign(&stranger, registry.endpoint(), &pushed.pinned, format)
        .await
        .unwrap();
    let error = verdict(&registry, &pushed, &policy).await.unwrap_err();
    assert_eq!(error.reason(), Reason::SignatureMismatch, "{error}");
    sign(&keys, registry.endpoint(), &pushed.pinned, format).await.unwrap();
    let verified = verdict(&registry, &pushed, &policy).await.unwrap();
    assert!(matches!(verified.verification(), Verification::Signed { authorities, .. } if authorities == &["release"]));

    let both = vec![trusting("release", &keys), trusting("other", &stranger)];
    let both = TrustPolicy::signed_by(both, 2).unwrap();
    assert!(verdict(&registry, &pushed, &both).await.is_ok());
}

/// Reads a bundle the way the product does: through an image's manifest and a registry.
async fn facts(bytes: &[u8]) -> BundleFacts {
    let reference: ImageReference = "registry.example/acme/policy".parse().unwrap();
    let repository = reference.repository().clone();
    let registry = InMemoryRegistry::default();
    let layer = descriptor(BUNDLE_LAYER, registry.put_blob(&repository, bytes), bytes.len() as u64);
    let manifest = json!({
        "schemaVersion": 2,
        "layers": [{ "mediaType": BUNDLE_LAYER, "digest": layer.digest, "size": layer.size }],
    })
    .to_string();
    let digest = Digest::of(manifest.as_bytes());
    let revision = ImageRevision {
        repository: repository.clone(),
        digest,
        tag: None,
    };
    let verified = TrustPolicy::NotConfigured.decide(&revision, &[]).unwrap();
    let ImageOrIndex::Image(image) = verified.open(OCI_MANIFEST, manifest.as_bytes()).unwrap() else {
        panic!("not an image")
    };
    let content = registry
        .blob(&repository, &layer, &RegistryAccess::default())
        .await
        .unwrap();
    let bundle = image
        .bundle(content, &Limits::default(), &CancellationToken::default())
        .unwrap();
    bundle.value().facts().as_ref().clone()
}

/// How many files `tar` lists.
async fn listed(bytes: &[u8]) -> usize {
    let directory = RunDirectory::new("tar-list").unwrap();
    let path = directory.write("bundle.tar.gz", bytes).unwrap();
    let output = Program::new("/bin/tar")
        .args(["-tzPf"])
        .arg(path)
        .output(LIMIT)
        .await
        .unwrap();
    let text = String::from_utf8(output).unwrap();
    text.lines().filter(|name| !name.ends_with('/')).count()
}

#[tokio::test]
async fn what_opa_builds_is_read() {
    let files = [
        ("app/policy.rego", "package app\n\nallow := true\n"),
        ("lib/util/more.rego", "package lib.util\n\nx := 1\n"),
        ("app/data.json", r#"{"users":["a"]}"#),
        (".manifest", r#"{"roots":["app","lib/util"]}"#),
    ];
    let bundle = Bundle::build(&files, "r42").await.unwrap();
    let facts = facts(&bundle.0).await;
    assert_eq!(facts.digest.to_string(), bundle.digest());
    assert_eq!((facts.revision.as_str(), facts.rego_version), ("r42", Some(1)));
    assert_eq!(facts.roots, ["app", "lib/util"]);
    assert_eq!(facts.files, listed(&bundle.0).await);
    let plain = Bundle::build(&files[..1], "").await.unwrap();
    assert_eq!(self::facts(&plain.0).await.roots, [""]);
}

/// Every dialect that GNU tar writes, with a path that needs each dialect's way to write long ones.
#[rstest]
#[case::gnu("gnu")]
#[case::old_gnu("oldgnu")]
#[case::ustar("ustar")]
#[case::pax("pax")]
#[tokio::test]
async fn what_tar_packs_is_read_as_tar_and_opa_read_it(#[case] dialect: &str) {
    let directory = RunDirectory::new("tar-pack").unwrap();
    let deep = format!("{}/{}", "d".repeat(80), "e".repeat(80));
    for (path, text) in [
        ("app/policy.rego".to_owned(), "package app\n\nanswer := data.app.n\n"),
        ("app/data.json".to_owned(), r#"{"n":42}"#),
        (".manifest".to_owned(), r#"{"roots":["app","lib"],"rego_version":1}"#),
        (format!("{deep}/long.rego"), "package lib\n"),
    ] {
        let file = directory.file("source").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let output = directory.file("bundle.tar.gz");
    let tar = Program::new("/bin/tar")
        .arg(format!("--format={dialect}"))
        .arg("-czf")
        .arg(&output);
    tar.arg("-C")
        .arg(directory.file("source"))
        .arg(".")
        .output(LIMIT)
        .await
        .unwrap();
    let bytes = std::fs::read(&output).unwrap();
    let facts = facts(&bytes).await;
    assert_eq!((facts.files, listed(&bytes).await), (4, 4));
    assert_eq!(facts.roots, ["app", "lib"]);
    assert_eq!(opa::eval(&output, "data.app.answer").await.unwrap(), json!(42));
}

/// OPA goes by the end of a path: why a second file that ends in `.manifest` is refused.
#[tokio::test]
async fn opa_takes_any_path_that_ends_in_manifest_for_a_manifest() {
    let bundle = Bundle::tar(&[
        ("/app/policy.rego", b"package app"),
        ("/app/x.manifest", br#"{"roots":["other"]}"#),
    ])
    .unwrap();
    let directory = RunDirectory::new("second-manifest").unwrap();
    let path = directory.write("bundle.tar.gz", &bundle.0).unwrap();
    let opa = Program::new(tools::bin("opa").unwrap())
        .args(["eval", "--bundle"])
        .arg(path)
        .arg("data.app");
    assert!(opa.output(LIMIT).await.is_err());
}
