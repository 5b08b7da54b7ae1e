//! Tools that know nothing of us read the conditions rightly: the truth table of `kubectl wait` (D30).

use std::time::Duration;

use serde_json::json;

use super::{Arena, with};

/// Whether `kubectl wait` is content within `seconds`.
async fn waits(arena: &Arena, what: &str, seconds: u32) -> bool {
    let kubectl = arena
        .cluster
        .kubectl()
        .expect("kubectl")
        .args(["wait", "policyimage/app", "--namespace"]);
    let wait = kubectl.args([
        &arena.namespace,
        &format!("--for={what}"),
        &format!("--timeout={seconds}s"),
    ]);
    wait.output(Duration::from_mins(2)).await.is_ok()
}

#[tokio::test]
async fn kubectl_wait_says_ready_when_and_only_when_the_newest_generation_is() {
    let mut arena = Arena::open("kstatus").await;
    arena.push("1.0.0", "one").await;
    arena
        .create("app", with(arena.spec("1.0.0"), &json!({ "interval": "5s" })))
        .await;
    assert!(waits(&arena, "condition=Ready", 60).await, "new");

    arena
        .patch("app", json!({ "spec": { "image": arena.spec("absent")["image"] } }))
        .await;
    assert!(waits(&arena, "condition=Ready=false", 60).await, "failing");
    assert!(waits(&arena, "condition=Reconciling", 60).await, "will be tried again");
    assert!(!waits(&arena, "condition=Ready", 1).await, "failing");

    arena.push("absent", "two").await;
    assert!(waits(&arena, "condition=Ready", 60).await, "recovered");
    assert!(!waits(&arena, "condition=Reconciling", 1).await, "recovered");

    arena.patch("app", json!({ "spec": { "suspend": true } })).await;
    assert!(waits(&arena, "condition=Ready=unknown", 60).await, "suspended");
    assert!(!waits(&arena, "condition=Ready", 1).await, "suspended");
    arena.patch("app", json!({ "spec": { "suspend": null } })).await;
    assert!(waits(&arena, "condition=Ready", 60).await, "resumed");

    arena.operator.process().stop().await.expect("stopped");
    arena
        .patch("app", json!({ "spec": { "image": arena.spec("1.0.0")["image"] } }))
        .await;
    assert!(
        !waits(&arena, "condition=Ready", 1).await,
        "nobody has looked at the new generation"
    );
    arena.restart().await;
    assert!(waits(&arena, "condition=Ready", 60).await, "looked at");

    arena
        .images()
        .delete("app", &kube::api::DeleteParams::default())
        .await
        .expect("deleted");
    assert!(waits(&arena, "delete", 60).await, "deleted");
}
