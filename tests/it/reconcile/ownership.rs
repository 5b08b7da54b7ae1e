//! What is not ours is never touched, and what is ours is kept as it should be (D19, F21).

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use rstest::rstest;
use serde_json::{Value, json};

use super::{Arena, bundle_in, bytes, condition, with};

fn owned_by(name: &str, uid: &str) -> Value {
    json!({ "name": "app-bundle", "ownerReferences": [
        { "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage", "name": name, "uid": uid, "controller": true },
    ] })
}

#[rstest]
#[case::of_a_user(json!({}))]
#[case::with_our_label(json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": "policy-operator" } } }))]
#[case::immutable(json!({ "immutable": true }))]
#[tokio::test]
async fn a_config_map_of_somebody_else_is_not_touched(#[case] more: Value) {
    let arena = Arena::open("ownership-foreign").await;
    arena.push("1.0.0", "one").await;
    let mut manifest = with(json!({ "metadata": {}, "data": { "theirs": "yes" } }), &more);
    manifest["metadata"]["name"] = json!("app-bundle");
    let before = arena.create_config_map(manifest).await;
    arena.create("app", arena.spec("1.0.0")).await;
    let object = arena.not_ready("app", "NotOwned").await;
    assert_eq!(condition(&object, "Delivered").reason, "NotOwned");
    assert_eq!(condition(&object, "Stalled").status, "True");
    assert_eq!(arena.config_map("app-bundle").await, before);
    arena.delete_config_map("app-bundle").await;
    arena.run_again("app").await;
    arena.ready("app").await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
}

#[tokio::test]
async fn two_objects_do_not_share_a_config_map() {
    let arena = Arena::open("ownership-two").await;
    arena.push("1.0.0", "one").await;
    arena.push("2.0.0", "two").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let before = arena.config_map("app-bundle").await;
    let delivery = json!({ "delivery": { "configMap": { "name": "app-bundle" } } });
    arena.create("rival", with(arena.spec("2.0.0"), &delivery)).await;
    arena.not_ready("rival", "NotOwned").await;
    assert_eq!(arena.config_map("app-bundle").await, before);
}

#[tokio::test]
async fn what_belongs_to_a_deleted_namesake_is_left_to_garbage_collection_and_then_replaced() {
    let arena = Arena::open("ownership-namesake").await;
    arena.push("1.0.0", "one").await;
    let metadata = owned_by("app", "00000000-0000-4000-8000-000000000000");
    let earlier = arena
        .create_config_map(json!({ "metadata": metadata, "data": { "old": "yes" } }))
        .await;
    arena.create("app", arena.spec("1.0.0")).await;
    arena.ready("app").await;
    let config_map = arena.config_map("app-bundle").await;
    assert_ne!(
        config_map.metadata.uid, earlier.metadata.uid,
        "a new one, not the old one changed"
    );
    assert_eq!((bundle_in(&config_map), config_map.data), (bytes("one"), None));
}

#[rstest]
#[case::edited(json!({ "binaryData": { "bundle.tar.gz": "AAAA" } }))]
#[case::emptied(json!({ "binaryData": null }))]
#[case::added_to(json!({ "data": { "evil.rego": "package system.authz" } }))]
#[case::added_to_in_binary(json!({ "binaryData": { "evil.tar.gz": "AAAA" } }))]
#[case::unlabelled(json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } }))]
#[case::relabelled(json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": "somebody" } } }))]
#[case::unmarked(json!({ "metadata": { "annotations": { "opcr.io/source": "elsewhere" } } }))]
#[tokio::test]
async fn what_others_change_is_restored_at_once(#[case] change: Value) {
    let arena = Arena::open("ownership-restored").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let before = arena.config_map("app-bundle").await;
    let changed = arena.patch_config_map("app-bundle", change).await;
    assert_ne!(content(&changed), content(&before));
    let restored = |found: Option<&ConfigMap>| found.is_some_and(|found| content(found) == content(&before));
    arena.until_config_map("app-bundle", "is restored", restored).await;
}

fn content(config_map: &ConfigMap) -> Value {
    let ConfigMap { binary_data, data, .. } = config_map;
    json!([binary_data, data, config_map.labels(), config_map.annotations()])
}

#[tokio::test]
async fn what_others_add_to_the_metadata_stays_and_makes_no_work() {
    let arena = Arena::open("ownership-metadata").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let added = json!({ "metadata": { "labels": { "theirs": "1" }, "annotations": { "acme.example/theirs": "1" } } });
    let changed = arena.patch_config_map("app-bundle", added).await;
    arena.run_again("app").await;
    assert_eq!(arena.writes()["configmaps"], 1);
    assert_eq!(arena.config_map("app-bundle").await, changed);
}

/// What created a ConfigMap is not the request that changes it, and yet owns its fields.
#[rstest]
#[case::alone(false, false)]
#[case::beside_another_client(true, false)]
#[case::after_a_change_of_the_content(false, true)]
#[case::beside_another_client_after_a_change_of_the_content(true, true)]
#[tokio::test]
async fn metadata_that_the_spec_no_longer_asks_for_is_removed(#[case] beside: bool, #[case] moved: bool) {
    let arena = Arena::open("ownership-earlier").await;
    arena.push("1.0.0", "one").await;
    let metadata = |metadata: Value| json!({ "delivery": { "configMap": metadata } });
    let earlier =
        json!({ "labels": { "team": "blue", "tier": "1" }, "annotations": { "acme.example/note": "earlier" } });
    arena
        .deliver("app", with(arena.spec("1.0.0"), &metadata(earlier)))
        .await;
    if beside {
        let theirs = json!({ "metadata": { "labels": { "theirs": "1" } } });
        arena.patch_config_map("app-bundle", theirs).await;
    }
    if moved {
        let newer = arena.push("1.0.0", "two").await;
        arena.run_again("app").await;
        arena.delivers("app", &newer.digest).await;
    }
    let now = json!({ "labels": { "team": "green", "tier": null }, "annotations": null });
    arena.patch("app", json!({ "spec": metadata(now) })).await;
    arena.run_again("app").await;
    let config_map = arena.config_map("app-bundle").await;
    let labels = config_map.labels();
    assert_eq!(labels.get("team").map(String::as_str), Some("green"));
    assert_eq!((labels.get("tier"), labels.contains_key("theirs")), (None, beside));
    assert_eq!(config_map.annotations().get("acme.example/note"), None);
    assert_eq!(bundle_in(&config_map), bytes(if moved { "two" } else { "one" }));
}

#[tokio::test]
async fn what_others_delete_is_restored_at_once() {
    let arena = Arena::open("ownership-deleted").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let uid = arena.config_map("app-bundle").await.metadata.uid;
    arena.delete_config_map("app-bundle").await;
    let again = |found: Option<&ConfigMap>| found.is_some_and(|found| found.metadata.uid != uid);
    arena.until_config_map("app-bundle", "is there again", again).await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
}

#[tokio::test]
async fn a_change_that_was_made_immutable_is_reported_and_mended_once_it_is_deleted() {
    let arena = Arena::open("ownership-immutable").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let change = json!({ "binaryData": { "bundle.tar.gz": "AAAA" }, "immutable": true });
    arena.patch_config_map("app-bundle", change).await;
    let object = arena.not_ready("app", "Immutable").await;
    let message = condition(&object, "Ready").message;
    assert!(message.contains("delete it, and it is created again"), "{message}");
    let delivered = condition(&object, "Delivered");
    assert_eq!(
        (delivered.status.as_str(), delivered.reason.as_str()),
        ("False", "Immutable"),
        "it holds something else"
    );
    arena.delete_config_map("app-bundle").await;
    arena.ready("app").await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
}

/// People and garbage collection find the object by this reference. By its UID alone the ConfigMap would still be ours.
#[tokio::test]
async fn an_owner_reference_with_another_name_is_put_right() {
    let arena = Arena::open("ownership-renamed").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let mut owners = json!(arena.config_map("app-bundle").await.owner_references());
    owners[0]["name"] = json!("other");
    let renamed = json!({ "metadata": { "ownerReferences": owners } });
    arena.patch_config_map("app-bundle", renamed).await;
    let named = |found: Option<&ConfigMap>| found.is_some_and(|found| found.owner_references()[0].name == "app");
    arena.until_config_map("app-bundle", "names its owner", named).await;
}
