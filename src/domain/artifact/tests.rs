use super::*;
use crate::domain::trust::TrustPolicy;
use crate::domain::trust::testing::revision;
use insta::assert_snapshot;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn descriptor(media_type: &str) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(media_type.as_bytes()), "size": 7 })
}

fn image(layers: &[&str]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(layer)).collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(IMAGE_CONFIG), "layers": layers })
}

fn index(children: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children })
}

fn open_as(header: &str, text: &str) -> Result<ImageOrIndex, ManifestError> {
    let revision = revision(text.as_bytes());
    let verified = TrustPolicy::NotConfigured.decide(&revision, &[]).unwrap();
    verified.open(header, text.as_bytes())
}

fn open(document: &Value) -> Result<ImageOrIndex, ManifestError> {
    open_as("", &document.to_string())
}

fn bundle_of(document: &Value) -> PolicyManifest {
    match open(document) {
        Ok(ImageOrIndex::Image(image)) => image.value().clone(),
        other => panic!("{other:?}"),
    }
}

/// Up to 4 MiB of them were kept for a day with each digest.
#[test]
fn annotations_are_cut_before_they_are_kept() {
    let many: serde_json::Map<String, Value> = (0..1000)
        .map(|number| (format!("{number:04}"), "ä".repeat(1000).into()))
        .collect();
    let mut manifest = image(&[BUNDLE_LAYER]);
    manifest["annotations"] = many.clone().into();
    manifest["layers"][0]["annotations"] = many.into();
    let PolicyManifest { bundle, annotations } = bundle_of(&manifest);
    assert_eq!((bundle.annotations.len(), annotations.len()), (0, MAX_ANNOTATIONS));
    let whole = "ä".repeat(MAX_ANNOTATION_CHARACTERS - 1) + "…";
    assert!(annotations.values().all(|value| *value == whole));
}

/// They would be in memory while a registry takes its time with the manifest.
#[test]
fn nothing_is_kept_of_an_index_but_what_its_child_is_fetched_by() {
    let mut child = descriptor(OCI_MANIFEST);
    child["annotations"] = json!({ "title": "x".repeat(1000) });
    child["artifactType"] = "x".repeat(1000).into();
    let Ok(ImageOrIndex::Index(child)) = open(&index(&[child])) else {
        panic!("an index");
    };
    let Descriptor {
        artifact_type,
        annotations,
        ..
    } = child.value().descriptor();
    assert_eq!((artifact_type, annotations.len()), (&None, 0));
}

#[test]
fn annotations_that_a_status_can_show_are_kept_whole() {
    let value = "ä".repeat(MAX_ANNOTATION_CHARACTERS);
    let mut manifest = image(&[BUNDLE_LAYER]);
    manifest["annotations"] = json!({ "title": value });
    assert_eq!(bundle_of(&manifest).annotations["title"], value);
}

/// Every shape that a release of the policy CLI, or the recipe in OPA's documentation, has ever pushed.
#[rstest]
#[case::policy_0_0(None, IMAGE_CONFIG, false)]
#[case::policy_0_1(None, IMAGE_CONFIG, true)]
#[case::policy_0_2_4(Some(OCI_MANIFEST), IMAGE_CONFIG, true)]
#[case::policy_0_2_6(None, IMAGE_CONFIG, true)]
#[case::policy_0_3_6(Some(OCI_MANIFEST), EMPTY_CONFIG, true)]
#[case::policy_0_4(Some(OCI_MANIFEST), EMPTY_CONFIG, true)]
#[case::oras(Some("application/vnd.acme.policy"), "application/vnd.unknown.config.v1+json", false)]
fn opens_every_shape_of_policy_image(
    #[case] artifact_type: Option<&str>,
    #[case] config: &str,
    #[case] annotated: bool,
) {
    let mut manifest = image(&[BUNDLE_LAYER]);
    manifest["config"] = descriptor(config);
    manifest["layers"][0]["annotations"] = json!({ "title": "layer", "org.openpolicyregistry.type": "policy" });
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = artifact_type.into();
    }
    if annotated {
        manifest["annotations"] = json!({ "title": "manifest" });
    }
    let opened = bundle_of(&manifest);
    assert_eq!(opened.bundle.digest, Digest::of(BUNDLE_LAYER.as_bytes()));
    assert_eq!(
        opened.annotations["title"],
        if annotated { "manifest" } else { "layer" }
    );
    assert_eq!(opened.annotations["org.openpolicyregistry.type"], "policy");
}

#[rstest]
#[case::extra_layers(&["application/json", BUNDLE_LAYER, "text/plain"], BUNDLE_LAYER)]
#[case::opas_choice_first(&[OPENPOLICYAGENT_LAYER, BUNDLE_LAYER], BUNDLE_LAYER)]
#[case::trivy(&[OPENPOLICYAGENT_LAYER], OPENPOLICYAGENT_LAYER)]
fn takes_the_layer_that_opa_takes(#[case] layers: &[&str], #[case] expected: &str) {
    assert_eq!(bundle_of(&image(layers)).bundle.media_type, expected);
}

#[rstest]
#[case::same(OCI_MANIFEST, json!(OCI_MANIFEST), true)]
#[case::docker(DOCKER_MANIFEST, json!(DOCKER_MANIFEST), true)]
#[case::only_header(OCI_MANIFEST, Value::Null, true)]
#[case::only_body("", json!(OCI_MANIFEST), true)]
#[case::neither("", Value::Null, true)]
#[case::generic_header("application/json", json!(OCI_MANIFEST), true)]
#[case::differ(DOCKER_MANIFEST, json!(OCI_MANIFEST), false)]
#[case::header_says_index(OCI_INDEX, Value::Null, false)]
#[case::body_says_index("", json!(OCI_INDEX), false)]
#[case::schema_1("application/vnd.docker.distribution.manifest.v1+prettyjws", Value::Null, false)]
fn header_and_body_have_to_agree(#[case] header: &str, #[case] body: Value, #[case] accepted: bool) {
    let mut manifest = image(&[BUNDLE_LAYER]);
    manifest["mediaType"] = body;
    assert_eq!(open_as(header, &manifest.to_string()).is_ok(), accepted);
}

#[rstest]
#[case::both("/manifests", json!([]))]
#[case::empty_index_beside_layers("/manifests", json!([{}]))]
#[case::no_layers("/layers", Value::Null)]
#[case::schema_1("/schemaVersion", json!(1))]
#[case::schema_text("/schemaVersion", json!("2"))]
#[case::negative_size("/layers/0/size", json!(-1))]
#[case::large_size("/layers/0/size", json!(u64::MAX))]
#[case::fractional_size("/layers/0/size", json!(1.5))]
#[case::sha512("/layers/0/digest", json!(format!("sha512:{}", "a".repeat(128))))]
#[case::upper_hex("/layers/0/digest", json!(format!("sha256:{}", "A".repeat(64))))]
#[case::short_hex("/layers/0/digest", json!("sha256:abc"))]
#[case::traversal("/layers/0/digest", json!("sha256:../../../../etc/passwd"))]
#[case::many_layers("/layers", Value::Array(vec![json!({"mediaType": "a", "digest": Digest::of(b""), "size": 0}); 65]))]
fn refuses_manifests_that_lie_or_that_two_readers_take_differently(#[case] field: &str, #[case] value: Value) {
    let mut manifest = image(&[BUNDLE_LAYER]);
    manifest["manifests"] = Value::Null;
    *manifest.pointer_mut(field).unwrap() = value;
    assert!(!matches!(
        open(&manifest).unwrap_err(),
        ManifestError::NotAPolicyImage { .. }
    ));
}

#[test]
fn refuses_equal_names_size_and_foreign_bytes() {
    let text = image(&[BUNDLE_LAYER]).to_string();
    for twin in [r#"{"layers":[],"#, r#"{"Layers":[],"#] {
        let error = open_as("", &text.replacen('{', twin, 1)).unwrap_err();
        assert!(matches!(error, ManifestError::ParseJson { .. }), "{error}");
    }
    let large = format!("{text}{}", " ".repeat(5 << 20));
    assert_eq!(open_as("", &large).unwrap_err(), ManifestError::TooLarge);
    let verified = TrustPolicy::NotConfigured.decide(&revision(b"other"), &[]).unwrap();
    let error = verified.open("", text.as_bytes()).unwrap_err();
    assert!(matches!(error, ManifestError::DigestMismatch { .. }));
}

fn child(media_type: &str, manifest: &Value) -> Value {
    let bytes = manifest.to_string();
    json!({ "mediaType": media_type, "digest": Digest::of(bytes.as_bytes()), "size": bytes.len() })
}

#[test]
fn an_index_leads_to_its_one_policy_image_and_no_further() {
    let manifest = image(&[BUNDLE_LAYER]);
    let policy = child(OCI_MANIFEST, &manifest);
    let mut attestation = child(OCI_MANIFEST, &json!(1));
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let mut unknown = child(OCI_MANIFEST, &json!(2));
    unknown["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let foreign = child("application/vnd.acme", &json!(3));
    let document = index(&[attestation, unknown, foreign, policy.clone(), policy]);
    let Ok(ImageOrIndex::Index(child)) = open(&document) else {
        panic!("no index")
    };
    let bytes = manifest.to_string();
    assert_eq!(child.value().descriptor().digest, Digest::of(bytes.as_bytes()));
    assert!(child.open(OCI_MANIFEST, bytes.as_bytes()).is_ok());
    let padded = format!("{bytes} ");
    assert!(matches!(
        child.open("", padded.as_bytes()),
        Err(ManifestError::SizeMismatch { .. })
    ));
    let other = bytes.replace(":7}", ":8}");
    assert!(matches!(
        child.open("", other.as_bytes()),
        Err(ManifestError::DigestMismatch { .. })
    ));
}

#[test]
fn an_index_of_none_several_or_indexes_is_refused() {
    let policy = |number: u8| child(OCI_MANIFEST, &json!(number));
    assert_eq!(open(&index(&[])), Err(ManifestError::EmptyIndex));
    assert_eq!(
        open(&index(&[child(OCI_INDEX, &json!(1))])),
        Err(ManifestError::EmptyIndex)
    );
    let several = open(&index(&[policy(1), policy(2)]));
    assert_eq!(several, Err(ManifestError::AmbiguousIndex { found: 2 }));
    let many = open(&index(&(0..65).map(policy).collect::<Vec<_>>()));
    assert_eq!(many, Err(ManifestError::LimitEntries { found: 65 }));
    let inner = index(&[]);
    let Ok(ImageOrIndex::Index(child)) = open(&index(&[child(OCI_MANIFEST, &inner)])) else {
        panic!("no index")
    };
    let error = child.open("", inner.to_string().as_bytes()).unwrap_err();
    assert_eq!(error, ManifestError::NestedIndex);
}

#[rstest]
#[case::conftest("conftest", &["application/vnd.cncf.openpolicyagent.policy.layer.v1+rego"; 7])]
#[case::helm("helm", &["application/vnd.cncf.helm.chart.content.v1.tar+gzip"])]
#[case::signature("signature", &["application/vnd.dev.cosign.simplesigning.v1+json"])]
#[case::kyverno("kyverno", &["application/vnd.cncf.kyverno.policy.layer.v1+yaml"])]
#[case::wasm("wasm", &["application/wasm"])]
#[case::docker("docker", &["application/vnd.docker.image.rootfs.diff.tar.gzip"])]
#[case::plain_tar("plain_tar", &["application/vnd.oci.image.layer.v1.tar"])]
#[case::zstd("zstd", &["application/vnd.oci.image.layer.v1.tar+zstd"])]
#[case::empty("empty", &[])]
#[case::other("other", &["text/\u{1b}[31mplain", "application/json", "a/b", "c/d", "e/f", "g/h"])]
fn says_what_an_image_is_instead(#[case] name: &str, #[case] layers: &[&str]) {
    assert_snapshot!(name, open(&image(layers)).unwrap_err());
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let verified = TrustPolicy::NotConfigured.decide(&revision(&bytes), &[]).unwrap();
        prop_assert!(verified.open("", &bytes).is_err());
    }

    #[test]
    fn never_panics_on_damaged_manifests(position in 0usize..400, byte in any::<u8>()) {
        let mut bytes = image(&[BUNDLE_LAYER]).to_string().into_bytes();
        let position = position % bytes.len();
        bytes[position] = byte;
        let verified = TrustPolicy::NotConfigured.decide(&revision(&bytes), &[]).unwrap();
        let _ = verified.open("", &bytes);
    }
}
