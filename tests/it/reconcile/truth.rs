//! Status tells the truth in time, and is never taken for a proof.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Arena, bundle_in, bytes, condition, status_of};

/// Whoever may write status and ConfigMaps could else plant a bundle for good.
#[tokio::test]
async fn a_bundle_that_status_and_annotations_vouch_for_is_replaced_by_the_verified_one() {
    let mut arena = Arena::open("truth-planted").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    arena.operator.process().stop().await.expect("stopped");
    // SHA-256 of `forged`.
    let digest = "sha256:ccdd35168ab474fa5764a526cfb83621351e23682c5075b2e18d56bddf96aa30";
    let planted = json!({
        "metadata": { "annotations": { "opcr.io/bundle-digest": digest } },
        "binaryData": { "bundle.tar.gz": "Zm9yZ2Vk" },
    });
    arena.patch_config_map("app-bundle", planted).await;
    let status = json!({ "status": { "bundle": { "digest": digest } } });
    let parameters = PatchParams::default();
    let images = arena.images();
    images
        .patch_status("app", &parameters, &Patch::Merge(status))
        .await
        .expect("patched");

    arena.restart().await;
    arena
        .until_config_map("app-bundle", "holds the verified bundle", |found| {
            found.is_some_and(|found| bundle_in(found) == bytes("one"))
        })
        .await;
}

/// A status that speaks about an older version says so by its generation; it is written all the same.
#[tokio::test]
async fn an_object_whose_labels_never_rest_has_conditions() {
    let arena = Arena::open("truth-restless").await;
    arena.push("1.0.0", "one").await;
    arena.create("app", arena.spec("1.0.0")).await;
    let restless = async {
        loop {
            let label = json!({ "metadata": { "labels": { "beat": fastrand::u32(..).to_string() } } });
            arena.patch("app", label).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = restless => {}
        _ = arena.ready("app") => {}
    }
}

/// Whoever asks for a run has repaired something. What failed a moment ago is no answer.
#[tokio::test]
async fn a_person_gets_an_answer_from_after_the_request() {
    let arena = Arena::open("truth-requested").await;
    arena.create("app", arena.spec("1.0.0")).await;
    arena.not_ready("app", "ImageNotFound").await;
    arena.push("1.0.0", "one").await;
    let object = arena.run_again("app").await;
    assert_eq!(
        status_of(&object, "Ready"),
        Some("True"),
        "{:?}",
        condition(&object, "Ready")
    );
}
