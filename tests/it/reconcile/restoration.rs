//! While runs fail, the last good bundle stays in its ConfigMap, whichever client removes it, or status says that it cannot.

use kube::api::DeleteParams;
use policy_operator_harness::cosign::{Format, Keys, Kind, sign};
use rstest::rstest;
use serde_json::json;

use super::{Arena, bytes, condition, with};

/// Delivers `app`, then makes every further run fail for want of the tag.
async fn failing(name: &str) -> Arena {
    let arena = Arena::open(name).await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    arena.follow("app", "9.9.9").await;
    let object = arena.not_ready("app", "ImageNotFound").await;
    assert_eq!(condition(&object, "Delivered").status, "True");
    arena
}

#[tokio::test]
async fn what_is_deleted_while_runs_fail_comes_back() {
    let arena = failing("hold-deleted").await;
    arena.delete_config_map("app-bundle").await;
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

/// Any tenant can fill the cache on disk, and so evict what another would need.
#[tokio::test]
async fn what_is_deleted_comes_back_although_its_file_was_evicted() {
    let arena = failing("hold-evicted").await;
    let blobs = arena.operator.directory().file("cache/blobs");
    std::fs::remove_dir_all(&blobs).expect("evicted");
    arena.delete_config_map("app-bundle").await;
    arena
        .until_config_map("app-bundle", "is back", |found| found.is_some())
        .await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
}

/// What the operator remembers is gone, so it looks for the digest again and verifies it.
#[tokio::test]
async fn what_is_deleted_after_a_restart_comes_back_from_the_registry() {
    let mut arena = failing("hold-restarted").await;
    arena.operator.process().stop().await.expect("stopped");
    arena.delete_config_map("app-bundle").await;
    arena.restart().await;
    arena
        .until_config_map("app-bundle", "is back", |found| found.is_some())
        .await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
    assert_eq!(condition(&arena.get("app").await, "Ready").reason, "ImageNotFound");
}

/// A key that was compromised is deleted. What it admitted is in memory still, and must not come back.
#[tokio::test]
async fn what_a_deleted_key_admitted_is_not_put_back() {
    let arena = Arena::open("hold-deleted-key").await;
    let pushed = arena.push("1.0.0", "one").await;
    let keys = Keys::generate(Kind::P256).await.expect("keys");
    sign(&keys, arena.registry(), &pushed.pinned, Format::Bundle)
        .await
        .expect("signed");
    arena.create_secret("key", "cosign.pub", &keys.public_pem).await;
    let key = json!({ "secretRef": { "name": "key", "key": "cosign.pub" } });
    let verify = json!({ "verify": { "authorities": [{ "name": "release", "key": key }] } });
    arena.deliver("app", with(arena.spec("1.0.0"), &verify)).await;
    let delete = DeleteParams::default();
    arena.secrets().delete("key", &delete).await.expect("deleted");
    // A change of the spec asks for a run, which meets the absent key.
    arena.patch("app", json!({ "spec": { "interval": "7m" } })).await;
    arena.not_ready("app", "ReferenceNotFound").await;
    arena.delete_config_map("app-bundle").await;
    arena.not_delivered("app").await;
    assert!(arena.config_maps().get_opt("app-bundle").await.expect("read").is_none());
}

/// The image was delivered without a signature. Now the spec asks for one; in one case its key is not even there.
#[rstest]
#[case::another_key("hold-other-key", true)]
#[case::an_absent_key("hold-no-key", false)]
#[tokio::test]
async fn what_the_policy_of_now_does_not_admit_is_not_put_back(#[case] name: &str, #[case] key_exists: bool) {
    let mut arena = failing(name).await;
    arena.operator.process().stop().await.expect("stopped");
    arena.delete_config_map("app-bundle").await;
    if key_exists {
        let keys = Keys::generate(Kind::P256).await.expect("keys");
        arena.create_secret("key", "cosign.pub", &keys.public_pem).await;
    }
    let key = json!({ "secretRef": { "name": "key", "key": "cosign.pub" } });
    let verify = json!({ "authorities": [{ "name": "release", "key": key }] });
    arena.patch("app", json!({ "spec": { "verify": verify } })).await;
    arena.restart().await;
    let object = arena.not_delivered("app").await;
    assert!(arena.config_maps().get_opt("app-bundle").await.expect("read").is_none());
    assert!(condition(&object, "Delivered").message.contains("cannot be restored"));
}
