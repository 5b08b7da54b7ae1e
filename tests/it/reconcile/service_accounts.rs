//! ServiceAccounts that a spec names, and that somebody made to hurt.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use policy_operator_harness::object;
use serde_json::json;

use super::access::token_registry;
use super::failures::docker_config;
use super::{Arena, REPOSITORY, bytes, condition, push, spec, with};

/// One cannot be read by clients in Rust, and is read for its pull secrets all the same. One names more pull secrets than
/// anybody needs, and fails the object that names it before any of them is read.
#[tokio::test]
async fn a_hostile_service_account_fails_at_most_the_objects_that_name_it() {
    let arena = Arena::open("service-accounts").await;
    arena.push("1.0.0", "one").await;
    let registry = token_registry().await;
    push(registry.endpoint(), "1.0.0", "one").await;
    let config = docker_config(registry.host(), "alice", "wonderland");
    arena.create_secret("pull", ".dockerconfigjson", &config).await;

    let many: Vec<_> = (0..5000)
        .map(|number| json!({ "name": format!("pull-{number}") }))
        .collect();
    for (name, secrets) in [("unreadable", json!([{ "name": "pull" }])), ("many", json!(many))] {
        let account = json!({ "metadata": { "name": name }, "imagePullSecrets": secrets });
        let account: ServiceAccount = serde_json::from_value(account).expect("ServiceAccount");
        let accounts = Api::namespaced(arena.client.clone(), &arena.namespace);
        accounts
            .create(&PostParams::default(), &account)
            .await
            .expect("created");
    }
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/unreadable", arena.namespace);
    object::make_unreadable(&arena.client, &path).await.expect("unreadable");

    let image = spec(&format!("{}/{REPOSITORY}:1.0.0", registry.host()));
    let by = |account: &str| with(image.clone(), &json!({ "serviceAccountName": account }));
    arena.create("many", by("many")).await;
    arena.deliver("unreadable", by("unreadable")).await;
    assert_eq!(arena.bundle("unreadable").await, bytes("one"));
    let object = arena.not_ready("many", "ReferenceInvalid").await;
    let message = condition(&object, "Ready").message;
    assert!(message.contains("5000"), "{message}");
    let read = arena.audit(|entry| entry.resource == "secrets" && entry.name.starts_with("pull-"));
    assert_eq!(read, []);
    arena.deliver("healthy", arena.spec("1.0.0")).await;
}
