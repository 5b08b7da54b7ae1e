//! While runs fail, the last good bundle stays in its ConfigMap, whoever removes it, or status says that it does not.

use kube::api::DeleteParams;
use serde_json::json;

use super::{Arena, bytes, condition};

/// Delivers `app`, then makes every further run fail for want of the tag.
async fn failing(name: &str) -> Arena {
    let arena = Arena::open(name).await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let elsewhere = arena.spec("9.9.9");
    arena
        .patch("app", json!({ "spec": { "image": elsewhere["image"] } }))
        .await;
    let object = arena.not_ready("app", "ImageNotFound").await;
    assert_eq!(condition(&object, "Delivered").status, "True");
    arena
}

#[tokio::test]
async fn what_is_deleted_while_runs_fail_comes_back() {
    let arena = failing("hold-deleted").await;
    let delete = DeleteParams::default();
    arena
        .config_maps()
        .delete("app-bundle", &delete)
        .await
        .expect("deleted");
    arena
        .until_config_map("app-bundle", "is back", |found| found.is_some())
        .await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
    assert_eq!(condition(&arena.get("app").await, "Delivered").status, "True");
}

#[tokio::test]
async fn what_is_changed_while_runs_fail_is_changed_back() {
    let arena = failing("hold-changed").await;
    let forged = json!({ "binaryData": { "bundle.tar.gz": "Zm9yZ2Vk" } });
    arena.patch_config_map("app-bundle", forged).await;
    arena
        .until_config_map("app-bundle", "is as it was", |found| {
            found.is_some_and(|found| super::bundle_in(found) == bytes("one"))
        })
        .await;
}

#[tokio::test]
async fn what_cannot_be_put_back_is_not_called_delivered() {
    let mut arena = failing("hold-forgotten").await;
    arena.restart().await;
    let delete = DeleteParams::default();
    arena
        .config_maps()
        .delete("app-bundle", &delete)
        .await
        .expect("deleted");
    let lost = |object: &_| super::status_of(object, "Delivered") == Some("False");
    let object = arena.until("app", "is not delivered", lost).await;
    assert!(!condition(&object, "Ready").message.contains("stays delivered"));
}
