use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use super::*;
use crate::domain::artifact::{BUNDLE_LAYER, ImageOrIndex, OCI_MANIFEST};
use crate::domain::bundle::Limits;
use crate::domain::bundle::testing::{Bytes, Tar};
use crate::domain::cancellation::CancellationToken;
use crate::domain::digest::Digest;
use crate::domain::reference::ImageReference;
use crate::domain::revision::ImageRevision;
use crate::domain::trust::TrustPolicy;
use crate::operator::api::spec::PolicyImage;
use crate::operator::delivery::Delivery;
use crate::operator::steps::dereference::References;
use crate::operator::steps::validate::{OperatorOptions, validate};
use crate::pipeline::reason::{Classify as _, Disposition, Reason};

fn verified(bytes: Vec<u8>) -> (Revision, Verified<Bundle>) {
    let image: ImageReference = "registry.example/acme/authz:1.0.0".parse().unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2 },
        "layers": [{ "mediaType": BUNDLE_LAYER, "digest": Digest::of(&bytes), "size": bytes.len() }],
    })
    .to_string();
    let revision = ImageRevision {
        repository: image.repository().clone(),
        digest: Digest::of(manifest.as_bytes()),
        tag: image.tag().cloned(),
    };
    let verified = TrustPolicy::NotConfigured.decide(&revision, &[]).unwrap();
    let ImageOrIndex::Image(manifest) = verified.open(OCI_MANIFEST, manifest.as_bytes()).unwrap() else {
        unreachable!()
    };
    (
        Revision::Image(revision),
        manifest
            .bundle(
                Arc::new(Bytes(bytes)),
                &Limits::default(),
                &CancellationToken::default(),
            )
            .unwrap(),
    )
}

fn target(annotation: &str) -> ConfigMapDelivery {
    let object: PolicyImage = serde_json::from_value(json!({
        "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage",
        "metadata": { "name": "authz", "namespace": "acme", "uid": "1" },
        "spec": {
            "image": "registry.example/acme/authz:1.0.0",
            "delivery": { "configMap": { "labels": { "team": "acme" }, "annotations": { "note": annotation } } },
        },
    }))
    .unwrap();
    let plan = validate(&object, &References::default(), OperatorOptions::default()).unwrap();
    let [Delivery::ConfigMap(target)] = plan.deliveries.as_slice() else {
        unreachable!()
    };
    target.clone()
}

#[test]
fn the_config_map_holds_the_bytes_and_says_where_they_are_from() {
    let bytes = Tar::policy().gzip();
    let (revision, bundle) = verified(bytes.clone());
    let made = target("hello").manifest(&revision, &bundle).unwrap();
    let made: ConfigMap = serde_json::from_value(made).unwrap();
    assert_eq!(made.binary_data.unwrap().get("bundle.tar.gz").unwrap().0, bytes);
    let metadata = made.metadata;
    let text = |pairs: &[(&str, &str)]| {
        Some(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
        )
    };
    assert_eq!(
        metadata.labels,
        text(&[("app.kubernetes.io/managed-by", "policy-operator"), ("team", "acme")])
    );
    let (digest, source) = (
        Digest::of(&bytes).to_string(),
        format!("registry.example/acme/authz@{}", revision.digest()),
    );
    let expected = text(&[
        ("note", "hello"),
        ("opcr.io/bundle-digest", &digest),
        ("opcr.io/source", &source),
    ]);
    assert_eq!(metadata.annotations, expected);
    let owners = metadata.owner_references.unwrap();
    assert!(matches!(owners.as_slice(), [owner] if owner.uid == "1" && owner.controller == Some(true)));
}

/// Text beside the bytes counts as well, so that the API server, which counts all of it, never has to refuse.
#[test]
fn a_config_map_is_filled_to_its_last_byte_and_no_further() {
    let (revision, bundle) = verified(Tar::policy().gzip());
    let size = bundle.value().facts().size;
    let made = |length: usize| {
        let mut target = target("");
        target.annotations.insert("more".into(), "a".repeat(length));
        target.manifest(&revision, &bundle)
    };
    let (mut fits, mut too_long) = (0, 1 << 20);
    while fits + 1 < too_long {
        let middle = usize::midpoint(fits, too_long);
        if made(middle).is_ok() {
            fits = middle;
        } else {
            too_long = middle;
        }
    }
    let full: ConfigMap = serde_json::from_value(made(fits).unwrap()).unwrap();
    let texts = |map: &Option<BTreeMap<String, String>>| -> usize {
        map.iter().flatten().map(|(key, value)| key.len() + value.len()).sum()
    };
    let data: usize = full
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| key.len() + value.0.len())
        .sum();
    let name = full.metadata.name.as_ref().map_or(0, String::len);
    let total = data + name + texts(&full.metadata.labels) + texts(&full.metadata.annotations);
    assert_eq!(total as u64, MAX_CONFIG_MAP_BYTES);
    let error = made(too_long).unwrap_err();
    assert!(matches!(error, ApplyError::FitConfigMap { size: found, limit } if found == size && limit == size - 1));
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::TooLarge, Disposition::Stalled)
    );
}
