//! Restarts, crashes and registries that hang.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, ListParams};
use policy_operator_harness::cluster::AuditEntry;
use serde_json::json;
use tokio::time::Instant;

use super::failures::docker_config;
use super::responder::Responder;
use super::{Arena, bytes, condition, spec, with};

async fn create_many(arena: &Arena, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|number| format!("app-{number}")).collect();
    for name in &names {
        arena.create(name, arena.spec("1.0.0")).await;
    }
    names
}

#[tokio::test]
async fn a_restart_with_fifty_objects_writes_nothing() {
    let mut arena = Arena::open("robustness-restart").await;
    arena.push("1.0.0", "one").await;
    let names = create_many(&arena, 50).await;
    for name in &names {
        arena.ready(name).await;
    }
    let stopping = Instant::now();
    let status = arena.operator.process().stop().await.expect("stopped");
    assert_eq!(status.code(), Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    let before = arena.writes();
    assert_eq!(
        (before["configmaps"], before["policyimages/status"]),
        (50, 50),
        "one write for each"
    );
    arena.restart().await;
    let looked = "policy_operator_reconcile_total{reason=\"Succeeded\"}";
    let all = || async { Ok((super::metrics::value(&arena.operator, looked).await >= 50.0).then_some(())) };
    super::wait::until("all are looked at", super::LIMIT, super::PAUSE, all)
        .await
        .expect("looked at");
    assert_eq!(arena.writes(), before);
}

#[tokio::test]
async fn a_crash_in_the_middle_of_the_work_leaves_nothing_behind() {
    let mut arena = Arena::open("robustness-crash").await;
    arena.push("1.0.0", "one").await;
    let names = create_many(&arena, 30).await;
    for _ in 0..3 {
        arena.operator.process().kill().await.expect("killed");
        arena.restart().await;
    }
    for name in &names {
        arena.ready(name).await;
        assert_eq!(arena.bundle(name).await, bytes("one"));
    }
    let label = ListParams::default().labels("app.kubernetes.io/managed-by=policy-operator");
    let maps = arena.config_maps().list(&label).await.expect("ConfigMaps");
    assert_eq!(maps.items.len(), names.len());
}

#[tokio::test]
async fn a_registry_that_never_answers_holds_up_nobody_else() {
    let arena = Arena::open("robustness-silent").await;
    arena.push("1.0.0", "one").await;
    let responder = Responder::start().await;
    for number in 0..15 {
        let image = format!("{}/silent/policy-{number}:1", responder.host());
        arena
            .create(
                &format!("silent-{number}"),
                with(spec(&image), &json!({ "timeout": "5s" })),
            )
            .await;
    }
    arena.deliver("healthy", arena.spec("1.0.0")).await;
    let object = arena.not_ready("silent-0", "DeadlineExceeded").await;
    assert_eq!(condition(&object, "Reconciling").status, "True");
    let message = condition(&object, "Ready").message;
    assert!(message.starts_with("the run did not end within 5 s"), "{message}");
}

/// Verbs that the audit log shows, and those that `config/` grants, except for the Lease of replicas.
#[tokio::test]
async fn the_operator_has_the_rights_it_uses_and_no_others() {
    let arena = Arena::open("robustness-rights").await;
    arena.push("1.0.0", "one").await;
    arena
        .create_secret(
            "pull",
            ".dockerconfigjson",
            &docker_config(arena.registry.host(), "alice", "x"),
        )
        .await;
    let more = json!({ "serviceAccountName": "default", "imagePullSecrets": [{ "name": "pull" }] });
    arena.deliver("app", with(arena.spec("1.0.0"), &more)).await;
    arena
        .patch(
            "app",
            json!({ "spec": { "delivery": { "configMap": { "name": "other" } } } }),
        )
        .await;
    arena
        .until_config_map("app-bundle", "is gone", |found| found.is_none())
        .await;
    let leases = |entry: &AuditEntry| entry.resource == "leases";
    let used: BTreeSet<(String, String)> = arena
        .cluster
        .audit(|entry| !leases(entry) && entry.resource.chars().all(|letter| letter != ':' && letter != '?'))
        .expect("audit log")
        .into_iter()
        .filter(|entry| !entry.resource.starts_with('/'))
        .map(|entry| (entry.resource, entry.verb))
        .collect();
    let api: Api<ClusterRole> = Api::all(arena.client.clone());
    let rules = api
        .get("policy-operator")
        .await
        .expect("role")
        .rules
        .unwrap_or_default();
    let granted: BTreeSet<(String, String)> = rules
        .iter()
        .flat_map(|rule| rule.resources.iter().flatten().map(|resource| (resource, &rule.verbs)))
        .flat_map(|(resource, verbs)| verbs.iter().map(|verb| (resource.clone(), verb.clone())))
        .collect();
    assert_eq!(
        used.difference(&granted).collect::<Vec<_>>(),
        [] as [&(String, String); 0],
        "used and not granted"
    );
    assert_eq!(
        granted.difference(&used).collect::<Vec<_>>(),
        [] as [&(String, String); 0],
        "granted and not used"
    );
}
