//! What is delivered goes when its object goes, whatever else is down (D22, F20).

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams};
use policy_operator_harness::wait;
use serde_json::json;

use super::{Arena, LIMIT, PAUSE, bytes, with};

async fn delete(arena: &Arena, name: &str) {
    arena
        .images()
        .delete(name, &DeleteParams::default())
        .await
        .expect("deleted");
}

async fn bundle_is_gone(arena: &Arena, name: &str) {
    arena
        .until_config_map(&format!("{name}-bundle"), "is gone", |found| found.is_none())
        .await;
}

#[tokio::test]
async fn an_object_goes_while_the_registry_is_down() {
    let mut arena = Arena::open("deletion-registry").await;
    arena.push("1.0.0", "one").await;
    arena
        .deliver("app", with(arena.spec("1.0.0"), &json!({ "interval": "5s" })))
        .await;
    arena.registry = super::InProcess::start(super::InProcessOptions::default())
        .await
        .expect("elsewhere");
    arena.not_ready("app", "RegistryUnavailable").await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
    delete(&arena, "app").await;
    bundle_is_gone(&arena, "app").await;
    let before = arena.writes();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(arena.writes(), before, "nobody writes about what is gone");
}

#[tokio::test]
async fn what_happens_while_the_operator_is_down_is_made_up_for() {
    let mut arena = Arena::open("deletion-operator").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("gone", arena.spec("1.0.0")).await;
    arena.deliver("changed", arena.spec("1.0.0")).await;
    arena.operator.process().stop().await.expect("stopped");
    delete(&arena, "gone").await;
    arena.create("new", arena.spec("1.0.0")).await;
    arena
        .patch_config_map("changed-bundle", json!({ "binaryData": null }))
        .await;
    bundle_is_gone(&arena, "gone").await;
    arena.restart().await;
    arena.ready("new").await;
    let restored = |found: Option<&ConfigMap>| found.is_some_and(|found| found.binary_data.is_some());
    arena.until_config_map("changed-bundle", "is restored", restored).await;
    assert_eq!(arena.bundle("changed").await, bytes("one"));
    let maps = arena
        .config_maps()
        .list(&ListParams::default().labels("app.kubernetes.io/managed-by=policy-operator"))
        .await;
    assert_eq!(maps.expect("ConfigMaps").items.len(), 2, "no orphan");
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let arena = Arena::open("deletion-namespace").await;
    arena.push("1.0.0", "one").await;
    for name in ["a", "b", "c"] {
        arena.deliver(name, arena.spec("1.0.0")).await;
    }
    let namespaces: Api<Namespace> = Api::all(arena.client.clone());
    namespaces
        .delete(&arena.namespace, &DeleteParams::default())
        .await
        .expect("deleted");
    let gone = || async { Ok(namespaces.get_opt(&arena.namespace).await?.is_none().then_some(())) };
    wait::until("the namespace goes", LIMIT, PAUSE, gone)
        .await
        .expect("gone");
}

#[tokio::test]
async fn an_object_of_the_same_name_starts_from_scratch() {
    let arena = Arena::open("deletion-again").await;
    arena.push("1.0.0", "one").await;
    let second = arena.push("2.0.0", "two").await;
    for _ in 0..5 {
        let object = arena.create("app", arena.spec("1.0.0")).await;
        delete(&arena, "app").await;
        drop(object);
    }
    let object = arena.create("app", arena.spec("2.0.0")).await;
    arena.delivers("app", &second.digest).await;
    let config_map = arena.config_map("app-bundle").await;
    assert_eq!(
        config_map.metadata.owner_references.expect("owner")[0].uid,
        object.metadata.uid.expect("uid")
    );
    assert_eq!(arena.bundle("app").await, bytes("two"));
}
