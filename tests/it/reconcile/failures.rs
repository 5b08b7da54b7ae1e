//! What can go wrong with an image, its registry or what a spec names: each has a name, says what to do, and leaves the
//! last good policy as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use policy_operator_harness::image::{Bundle, PolicyImage};
use policy_operator_harness::object;
use policy_operator_harness::ports;
use policy_operator_harness::registry::{Credentials, Distribution, DistributionOptions, Endpoint};
use serde_json::{Value, json};

use super::responder::Responder;
use super::{Arena, bytes, condition, spec, with};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// `.dockerconfigjson` with one user for one host.
pub(super) fn docker_config(host: &str, user: &str, password: &str) -> String {
    let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
    json!({ "auths": { host: { "auth": auth } } }).to_string()
}

/// A registry that asks for the password of alice.
pub(super) async fn locked_registry(password: &str) -> Distribution {
    let credentials = Some(Credentials {
        user: "alice".into(),
        password: password.into(),
    });
    Distribution::start(DistributionOptions {
        credentials,
        ..DistributionOptions::default()
    })
    .await
    .expect("registry")
}

async fn push_bytes(registry: &Endpoint, tag: &str, layer: Vec<u8>) -> String {
    PolicyImage::new(Bundle(layer))
        .push(registry, "acme/odd", tag)
        .await
        .expect("pushed")
        .reference
}

/// Pushes an image with one layer of this media type.
async fn push_layer(registry: &Endpoint, tag: &str, media_type: &str) -> String {
    let layer = Bundle::answering("one").expect("bundle");
    registry.push_blob("acme/odd", b"{}").await.expect("pushed");
    registry.push_blob("acme/odd", &layer.0).await.expect("pushed");
    let config = Bundle(b"{}".to_vec()).digest();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": media_type, "digest": layer.digest(), "size": layer.0.len() }],
    });
    let text = manifest.to_string();
    registry
        .push_manifest("acme/odd", tag, MANIFEST, text.as_bytes())
        .await
        .expect("pushed");
    format!("{}/acme/odd:{tag}", registry.host)
}

fn archive_with_symlink() -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive
        .append_link(&mut header, "app/policy.rego", "/etc/passwd")
        .expect("appended");
    archive.into_inner().and_then(GzEncoder::finish).expect("finished")
}

/// More than a ConfigMap holds, also when it is compressed.
fn large_bundle() -> Vec<u8> {
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(2 << 20).collect();
    let rego = format!("package app\n\n# {noise}\n");
    Bundle::tar(&[
        ("/app/policy.rego", rego.as_bytes()),
        ("/.manifest", br#"{"roots":["app"]}"#),
    ])
    .expect("bundle")
    .0
}

fn secret_key(name: &str, key: &str) -> Value {
    json!({ "verify": { "authorities": [
        { "name": "release", "key": { "secretRef": { "name": name, "key": key } } },
    ] } })
}

/// A bad input: its name, the spec and the reason.
type Case = (&'static str, Value, &'static str);

/// Registries that cannot be used, or do not have it.
fn bad_registries(arena: &Arena, locked: &Distribution, responder: &Responder) -> Vec<Case> {
    let closed = format!("127.0.0.1:{}", ports::free().expect("port"));
    // A label of 64 letters fails in the resolver itself, so that no name server is asked.
    let unresolvable = format!("{}.example", "a".repeat(64));
    let at = |host: &str| spec(&format!("{host}/acme/policy:1.0.0"));
    let absent = spec(&format!("{}/acme/absent:1.0.0", arena.registry.host()));
    let wrong = with(at(locked.host()), &json!({ "imagePullSecrets": [{ "name": "wrong" }] }));
    let answer = |kind| spec(&responder.image(kind));
    vec![
        ("host-unknown", at(&unresolvable), "RegistryUnavailable"),
        ("host-refuses", at(&closed), "RegistryUnavailable"),
        ("host-metadata", at("169.254.169.254"), "AddressRefused"),
        ("credentials-none", at(locked.host()), "AuthenticationFailed"),
        ("credentials-wrong", wrong, "AuthenticationFailed"),
        ("answer-403", answer("denied"), "AccessDenied"),
        ("answer-429", answer("limited"), "RateLimited"),
        ("answer-503", answer("broken"), "RegistryUnavailable"),
        ("answer-400", answer("noisy"), "RegistryProtocolError"),
        ("tag-unknown", arena.spec("absent"), "ImageNotFound"),
        ("repository-unknown", absent, "ImageNotFound"),
    ]
}

/// Images that are none of ours, or hold no bundle that may be delivered.
async fn bad_images(registry: &Endpoint) -> Vec<Case> {
    let docker = push_layer(registry, "docker", "application/vnd.docker.image.rootfs.diff.tar.gzip").await;
    let conftest = "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego";
    let conftest = push_layer(registry, "conftest", conftest).await;
    let plain = push_bytes(registry, "plain", b"no gzip".to_vec()).await;
    let symlink = push_bytes(registry, "symlink", archive_with_symlink()).await;
    let large = push_bytes(registry, "large", large_bundle()).await;
    vec![
        ("image-docker", spec(&docker), "NotAPolicyImage"),
        ("image-conftest", spec(&conftest), "NotAPolicyImage"),
        ("layer-no-gzip", spec(&plain), "InvalidBundle"),
        ("layer-symlink", spec(&symlink), "InvalidBundle"),
        ("layer-large", spec(&large), "TooLarge"),
    ]
}

/// Specs that name what is not there, not what it should be, or not theirs.
fn bad_references(arena: &Arena) -> Vec<Case> {
    let good = |more: Value| with(arena.spec("1.0.0"), &more);
    let pull = |name: &str| good(json!({ "imagePullSecrets": [{ "name": name }] }));
    let account = good(json!({ "serviceAccountName": "absent" }));
    let foreign = good(json!({ "delivery": { "configMap": { "name": "foreign" } } }));
    let range = json!({ "image": format!("{}/acme/policy", arena.registry.host()), "semver": "newest" });
    vec![
        ("secret-absent", pull("absent"), "ReferenceNotFound"),
        ("account-absent", account, "ReferenceNotFound"),
        ("secret-no-key", good(secret_key("keys", "absent")), "ReferenceNotFound"),
        ("secret-bad-key", good(secret_key("keys", "pem")), "ReferenceInvalid"),
        ("secret-bad-json", pull("broken"), "ReferenceInvalid"),
        ("target-foreign", foreign, "NotOwned"),
        ("range-invalid", range, "InvalidSpec"),
    ]
}

/// What the bad specs name.
async fn create_references(arena: &Arena, locked: &Distribution) {
    let pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    let (broken, wrong) = (
        r#"{"auths":{"x":{"auth":"%"}}}"#,
        docker_config(locked.host(), "alice", "guess"),
    );
    arena.create_secret("keys", "pem", pem).await;
    arena.create_secret("broken", ".dockerconfigjson", broken).await;
    arena.create_secret("wrong", ".dockerconfigjson", &wrong).await;
    let foreign = json!({ "metadata": { "name": "foreign" }, "data": { "a": "b" } });
    arena.create_config_map(foreign).await;
}

#[tokio::test]
async fn every_failure_has_its_name_and_leaves_the_last_good_policy_as_it_is() {
    let arena = Arena::open("failures").await;
    let (locked, responder) = (locked_registry("wonderland").await, Responder::start().await);
    let good = arena.push("1.0.0", "one").await;
    create_references(&arena, &locked).await;
    let mut cases = bad_registries(&arena, &locked, &responder);
    cases.extend(bad_images(arena.registry()).await);
    cases.extend(bad_references(&arena));
    for (name, ..) in &cases {
        arena.create(name, arena.spec("1.0.0")).await;
    }
    let mut before = BTreeMap::new();
    for (name, spec, _) in &cases {
        arena.ready(name).await;
        before.insert(*name, arena.config_map(&format!("{name}-bundle")).await);
        arena.patch(name, json!({ "spec": spec })).await;
    }
    let mut table = BTreeMap::new();
    for (name, spec, reason) in &cases {
        let object = arena.not_ready(name, reason).await;
        let then = ["Stalled", "Reconciling"].map(|kind| (kind, object::condition(&object, kind)));
        let then: Vec<&str> = then
            .iter()
            .filter(|(_, found)| found.is_some())
            .map(|(kind, _)| *kind)
            .collect();
        let host = spec["image"].as_str().and_then(|image| image.split('/').next());
        let message = condition(&object, "Ready")
            .message
            .replace(host.expect("host"), "[host]");
        let message = stable(&message.replace(&good.digest[7..19], "[digest]"));
        table.insert(*name, json!({ "reason": reason, "then": then, "message": message }));
        assert_eq!(
            arena.config_map(&format!("{name}-bundle")).await,
            before[name],
            "{name}"
        );
        assert_eq!(arena.bundle(name).await, bytes("one"), "{name}");
    }
    insta::assert_yaml_snapshot!(table);
}

/// Without what the operating system and chance have to say.
fn stable(message: &str) -> String {
    let Some((before, after)) = message.split_once("cannot be reached: ") else {
        let large = message
            .split_once("the bundle has ")
            .and_then(|(_, rest)| rest.split_once(" bytes"));
        return large.map_or_else(|| message.to_owned(), |(size, _)| message.replace(size, "[size]"));
    };
    let end = after.rfind(';').map_or("", |end| &after[end..]);
    format!("{before}cannot be reached: [cause]{end}")
}

#[tokio::test]
async fn a_registry_that_asks_for_time_is_left_alone() {
    let arena = Arena::open("failures-limited").await;
    let responder = Responder::start().await;
    arena.create("app", spec(&responder.image("limited"))).await;
    arena.not_ready("app", "RateLimited").await;
    // Twice the delay of a first retry: that none comes cannot be waited for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(responder.requests(), 1);
}

#[tokio::test]
async fn a_secret_that_comes_later_is_found() {
    let arena = Arena::open("failures-later").await;
    arena.push("1.0.0", "one").await;
    arena
        .create(
            "app",
            with(
                arena.spec("1.0.0"),
                &json!({ "imagePullSecrets": [{ "name": "later" }] }),
            ),
        )
        .await;
    arena.not_ready("app", "ReferenceNotFound").await;
    arena
        .create_secret(
            "later",
            ".dockerconfigjson",
            &docker_config(arena.registry.host(), "alice", "x"),
        )
        .await;
    arena.ready("app").await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
}

#[tokio::test]
async fn where_verification_is_required_a_spec_without_it_is_refused() {
    let arena = Arena::with("failures-required", &["--require-verification"]).await;
    arena.push("1.0.0", "one").await;
    arena.create("app", arena.spec("1.0.0")).await;
    arena.not_ready("app", "VerificationRequired").await;
    assert_eq!(arena.config_maps().get_opt("app-bundle").await.expect("answer"), None);
}

#[tokio::test]
async fn a_registry_that_is_not_allowed_is_not_asked() {
    let arena = Arena::with("failures-not-allowed", &["--allow-registry", "*.acme.example,ghcr.io"]).await;
    arena.push("1.0.0", "one").await;
    drop(arena.registry.take_counts());
    arena.create("app", arena.spec("1.0.0")).await;
    arena.not_ready("app", "RegistryNotAllowed").await;
    assert!(arena.registry.take_counts().is_empty());
}
