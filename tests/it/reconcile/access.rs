//! Registries that ask who comes, and that show certificates of their own.

use policy_operator_harness::registry::{
    Credentials, Distribution, DistributionOptions, Endpoint, InProcess, InProcessOptions,
};
use policy_operator_harness::tls::Authority;
use rstest::rstest;
use serde_json::{Value, json};

use super::failures::docker_config;
use super::{Arena, bytes, condition, push, with};

async fn delivered(arena: &Arena, registry: &Endpoint, more: &Value) {
    let pushed = push(registry, "1.0.0", "one").await;
    arena
        .deliver("app", with(json!({ "image": pushed.reference }), more))
        .await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
}

/// A registry that gives tokens to alice, and to nobody else.
pub(super) async fn token_registry() -> InProcess {
    let alice = Credentials {
        user: "alice".into(),
        password: "wonderland".into(),
    };
    let options = InProcessOptions {
        token_user: Some(alice),
        ..InProcessOptions::default()
    };
    InProcess::start(options).await.expect("registry")
}

#[rstest]
#[case::pull_secret(json!({ "imagePullSecrets": [{ "name": "pull" }] }))]
#[case::service_account(json!({ "serviceAccountName": "default" }))]
#[tokio::test]
async fn a_token_is_fetched_with_the_credentials_of_a_pull_secret(#[case] by: Value) {
    let arena = Arena::open("access-token").await;
    let registry = token_registry().await;
    let config = docker_config(registry.host(), "alice", "wonderland");
    arena.create_secret("pull", ".dockerconfigjson", &config).await;
    let account = json!({ "imagePullSecrets": [{ "name": "pull" }] });
    let accounts: super::Api<k8s_openapi::api::core::v1::ServiceAccount> =
        super::Api::namespaced(arena.client.clone(), &arena.namespace);
    let patch = super::Patch::Merge(account);
    accounts
        .patch("default", &super::PatchParams::default(), &patch)
        .await
        .expect("patched");
    delivered(&arena, registry.endpoint(), &with(json!({ "insecure": true }), &by)).await;
}

#[rstest]
#[case::in_a_config_map("configMapRef")]
#[case::in_a_secret("secretRef")]
#[tokio::test]
async fn a_private_authority_and_a_client_certificate_open_the_registry(#[case] kind: &str) {
    let arena = Arena::open("access-tls").await;
    let authority = Authority::new().expect("authority");
    let options = DistributionOptions {
        tls: Some(&authority),
        client_certificate: true,
        ..DistributionOptions::default()
    };
    let registry = Distribution::start(options).await.expect("registry");
    let (certificate, client) = (
        authority.certificate(),
        authority.client("acme", "acme").expect("certificate"),
    );
    arena.create_secret("ca", "ca.crt", &certificate).await;
    arena
        .create_config_map(json!({ "metadata": { "name": "ca" }, "data": { "ca.crt": certificate } }))
        .await;
    let secret = json!({
        "metadata": { "name": "client" },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": client.certificate, "tls.key": client.key },
    });
    let secret = serde_json::from_value(secret).expect("Secret");
    arena
        .secrets()
        .create(&super::PostParams::default(), &secret)
        .await
        .expect("created");
    let authority = json!({ kind: { "name": "ca", "key": "ca.crt" } });
    let tls = json!({ "tls": { "caRef": authority, "certSecretRef": { "name": "client" } } });
    delivered(&arena, registry.endpoint(), &tls).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_until_its_authority_is_named() {
    let arena = Arena::open("access-untrusted").await;
    let authority = Authority::new().expect("authority");
    let options = DistributionOptions {
        tls: Some(&authority),
        ..DistributionOptions::default()
    };
    let registry = Distribution::start(options).await.expect("registry");
    let pushed = push(registry.endpoint(), "1.0.0", "one").await;
    arena.create("app", json!({ "image": pushed.reference })).await;
    let object = arena.not_ready("app", "TlsFailed").await;
    assert!(condition(&object, "Ready").message.contains("spec.tls.caRef"));
    arena.create_secret("ca", "ca.crt", &authority.certificate()).await;
    let tls = json!({ "caRef": { "secretRef": { "name": "ca", "key": "ca.crt" } } });
    arena.patch("app", json!({ "spec": { "tls": tls } })).await;
    arena.ready("app").await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
}
