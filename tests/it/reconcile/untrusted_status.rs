//! Status is corrected in time, and is never trusted.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::fairness::until_it_hangs;
use super::{Arena, bundle_in, bytes, condition, spec, status_of, with};

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
    arena.patch_status("app", status).await;

    arena.restart().await;
    arena
        .until_config_map("app-bundle", "holds the verified bundle", |found| {
            found.is_some_and(|found| bundle_in(found) == bytes("one"))
        })
        .await;
}

/// Whoever may write status could else have an older bundle delivered again, as soon as runs fail.
#[tokio::test]
async fn an_older_bundle_that_status_names_is_not_put_in_place_of_the_one_that_was_found() {
    let mut arena = Arena::open("truth-older").await;
    arena.push("1.0.0", "one").await;
    let older = arena.deliver("app", arena.spec("1.0.0")).await;
    let newer = arena.push("2.0.0", "two").await;
    arena.follow("app", "2.0.0").await;
    arena.delivers("app", &newer.digest).await;
    arena.restart().await;
    arena.run_again("app").await;

    let status = json!({ "status": {
        "source": older.data["status"]["source"], "bundle": older.data["status"]["bundle"],
    } });
    arena.patch_status("app", status).await;
    arena.follow("app", "9.9.9").await;
    arena.not_ready("app", "ImageNotFound").await;
    assert_eq!(arena.bundle("app").await, bytes("two"));
}

/// What an earlier process verified is known from status alone, until a run succeeds.
#[tokio::test]
async fn after_a_restart_nothing_is_called_delivered_before_it_was_verified() {
    let mut arena = Arena::open("truth-restarted").await;
    arena.push("1.0.0", "one").await;
    let (host, hang) = until_it_hangs(arena.registry.host().to_owned()).await;
    let image = format!("{host}/{}:1.0.0", super::REPOSITORY);
    arena
        .deliver("app", with(spec(&image), &json!({ "timeout": "2s" })))
        .await;
    arena.operator.process().stop().await.expect("stopped");
    hang.send_replace(true);
    arena.restart().await;
    let unknown = |object: &_| status_of(object, "Delivered") == Some("Unknown");
    arena.until("app", "unknown", unknown).await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
    hang.send_replace(false);
    let delivered = |object: &_| status_of(object, "Delivered") == Some("True");
    arena.until("app", "delivered", delivered).await;
    assert_eq!(arena.writes()["configmaps"], 1, "it was in place all the time");
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

/// Any write of ours may meet one of that client. The object does not wait for it to rest.
#[tokio::test]
async fn an_object_whose_config_map_never_rests_has_conditions() {
    let arena = Arena::open("truth-restless-map").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let newer = arena.push("2.0.0", "two").await;
    let restless = async {
        loop {
            let label = json!({ "metadata": { "labels": { "beat": fastrand::u32(..).to_string() } } });
            arena.patch_config_map("app-bundle", label).await;
        }
    };
    let change = json!({ "spec": { "image": arena.spec("2.0.0")["image"] } });
    let told = async {
        arena.patch("app", change).await;
        let is_told = |object: &_| status_of(object, "Ready").is_some();
        arena.until("app", "is told", is_told).await;
    };
    tokio::select! {
        () = restless => {}
        () = told => {}
    }
    arena.delivers("app", &newer.digest).await;
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

/// The same, of an object that the spec names. Values of Secrets are shared for seconds otherwise.
#[tokio::test]
async fn a_person_who_repaired_a_secret_gets_an_answer_from_after_that() {
    let arena = Arena::open("truth-secret").await;
    arena.push("1.0.0", "one").await;
    arena.create_secret("pull", ".dockerconfigjson", r#"{"auths":5}"#).await;
    let pull = json!({ "imagePullSecrets": [{ "name": "pull" }] });
    arena.create("app", with(arena.spec("1.0.0"), &pull)).await;
    arena.not_ready("app", "ReferenceInvalid").await;
    arena.run_again("app").await;
    let repaired = json!({ "stringData": { ".dockerconfigjson": r#"{"auths":{}}"# } });
    let patch = Patch::Merge(repaired);
    arena
        .secrets()
        .patch("pull", &PatchParams::default(), &patch)
        .await
        .expect("repaired");
    let object = arena.run_again("app").await;
    let ready = condition(&object, "Ready");
    assert_eq!(ready.status, "True", "{ready:?}");
}

/// Who takes our owner reference out, and changes the content with it, is seen at once.
#[tokio::test]
async fn a_config_map_that_is_taken_away_from_its_object_is_not_called_delivered() {
    let arena = Arena::open("truth-disowned").await;
    arena.push("1.0.0", "one").await;
    arena
        .deliver("app", with(arena.spec("1.0.0"), &json!({ "interval": "24h" })))
        .await;
    let disowned = json!({ "metadata": { "ownerReferences": null }, "binaryData": { "bundle.tar.gz": "Zm9yZ2Vk" } });
    arena.patch_config_map("app-bundle", disowned).await;
    let object = arena.not_ready("app", "NotOwned").await;
    assert_eq!(condition(&object, "Delivered").status, "False");
}

/// The watch selects by our label. Who removes it first must not be out of sight for what comes next.
#[tokio::test]
async fn a_label_that_is_removed_while_runs_fail_comes_back() {
    let arena = Arena::open("truth-unlabelled").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    arena.follow("app", "9.9.9").await;
    arena.not_ready("app", "ImageNotFound").await;
    let label = "app.kubernetes.io/managed-by";
    arena
        .patch_config_map("app-bundle", json!({ "metadata": { "labels": { label: null } } }))
        .await;
    arena
        .until_config_map("app-bundle", "is labelled", |found| {
            found.is_some_and(|found| found.labels().contains_key(label))
        })
        .await;
}
