//! Credentials are used and never repeated (D11).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::failures::{docker_config, locked_registry};
use super::responder::Responder;
use super::tenancy::key_in;
use super::{Arena, REPOSITORY, bytes, push, spec, with};

const CANARY: &str = "canary-7f3a91";

/// Puts the canary wherever a Secret may hold a credential, rightly or not.
async fn create_secrets(arena: &Arena, registry: &str, responder: &str) {
    let entry = format!("https://alice:{CANARY}@registry.acme.example");
    let broken = json!({ "auths": { entry: { "auth": CANARY } } }).to_string();
    let private = format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n");
    for (name, key, value) in [
        ("right", ".dockerconfigjson", docker_config(registry, "alice", CANARY)),
        ("wrong", ".dockerconfigjson", docker_config(registry, CANARY, CANARY)),
        ("odd", ".dockerconfigjson", docker_config(responder, "alice", CANARY)),
        ("broken", ".dockerconfigjson", broken),
        ("keys", "pem", private),
    ] {
        arena.create_secret(name, key, &value).await;
    }
}

/// Every way to fail with credentials at hand: a name, the spec and the reason.
fn failures(registry: &str, responder: &Responder) -> Vec<(&'static str, Value, &'static str)> {
    let at = |tag: &str| format!("{registry}/{REPOSITORY}:{tag}");
    let pull = |image: &str, secret: &str| with(spec(image), &json!({ "imagePullSecrets": [{ "name": secret }] }));
    let odd = |kind| pull(&responder.image(kind), "odd");
    let private = with(spec(&at("1.0.0")), &key_in("secretRef", "keys"));
    vec![
        ("wrong", pull(&at("1.0.0"), "wrong"), "AuthenticationFailed"),
        ("absent", pull(&at("absent"), "right"), "ImageNotFound"),
        ("locked", odd("locked"), "AuthenticationFailed"),
        ("denied", odd("denied"), "AccessDenied"),
        ("limited", odd("limited"), "RateLimited"),
        ("failing", odd("failing"), "RegistryUnavailable"),
        ("noisy", odd("noisy"), "RegistryProtocolError"),
        ("broken", pull(&at("1.0.0"), "broken"), "ReferenceInvalid"),
        ("private", private, "ReferenceInvalid"),
    ]
}

/// Everything that somebody other than the operator can read, by place.
async fn readable(arena: &Arena) -> [(&'static str, String); 4] {
    let objects = arena
        .images()
        .list(&ListParams::default())
        .await
        .expect("objects")
        .items;
    let statuses: Vec<Value> = objects
        .into_iter()
        .map(|object| object.data["status"].clone())
        .collect();
    let events: Api<Event> = Api::namespaced(arena.client.clone(), &arena.namespace);
    let events = events.list(&ListParams::default()).await.expect("events").items;
    [
        ("log", arena.operator.log_text()),
        ("statuses", json!(statuses).to_string()),
        ("events", json!(events).to_string()),
        ("metrics", arena.operator.metrics().await.expect("metrics")),
    ]
}

#[tokio::test]
async fn no_credential_is_repeated_whatever_fails_and_however_much_is_logged() {
    let arena = Arena::with("canary", &["--log-level", "trace"]).await;
    let registry = locked_registry(CANARY).await;
    push(registry.endpoint(), "1.0.0", "one").await;
    let responder = Responder::start().await;
    create_secrets(&arena, registry.host(), responder.host()).await;
    let image = spec(&format!("{}/{REPOSITORY}:1.0.0", registry.host()));
    arena
        .deliver(
            "right",
            with(image, &json!({ "imagePullSecrets": [{ "name": "right" }] })),
        )
        .await;
    assert_eq!(
        arena.bundle("right").await,
        bytes("one"),
        "the canary opens the registry"
    );
    for (name, spec, reason) in failures(registry.host(), &responder) {
        arena.create(name, spec).await;
        arena.not_ready(name, reason).await;
    }
    assert!(arena.operator.log_text().contains("TRACE"), "the log holds everything");
    let encoded = BASE64_STANDARD.encode(format!("alice:{CANARY}"));
    for (place, text) in readable(&arena).await {
        let line = text
            .lines()
            .find(|line| line.contains(CANARY) || line.contains(&encoded));
        assert_eq!(line, None, "{place}");
    }
}
