//! Two replicas with the rights of `config/`: one works, and the other goes on when it is asked to stop.

use std::collections::BTreeSet;

use policy_operator_harness::cluster::{AuditEntry, OPERATOR_NAMESPACE};
use policy_operator_harness::wait;

use super::metrics::value;
use super::{Arena, LIMIT, PAUSE, bytes, launch_operator};

const LEADER: &str = "policy_operator_leader";

#[tokio::test]
async fn the_standby_is_ready_and_takes_over_when_the_leader_is_stopped() {
    let mut arena = Arena::open("leadership").await;
    arena.operator.process().stop().await.expect("this one asks nobody");
    let flags = ["--leader-elect", "--leader-elect-namespace", OPERATOR_NAMESPACE];
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let mut replica = launch_operator(arena.cluster, &arena.namespace, &flags, false).await;
        replica.ready().await.expect("ready, be it as standby");
        let leads = || async { Ok((!replicas.is_empty() || value(&replica, LEADER).await > 0.0).then_some(())) };
        wait::until("the first replica leads", LIMIT, PAUSE, leads)
            .await
            .expect("leads");
        replicas.push(replica);
    }
    let [first, second] = replicas.as_mut_slice() else {
        panic!("two")
    };
    arena.push("1.0.0", "one").await;
    arena.deliver("before", arena.spec("1.0.0")).await;
    assert!(value(second, LEADER).await < 1.0);
    assert!(
        value(second, "policy_operator_reconcile_total{reason=\"Succeeded\"}").await < 1.0,
        "one works"
    );

    let status = first.process().stop().await.expect("stopped");
    assert_eq!(status.code(), Some(0), "{}", first.log_text());
    let leads = || async { Ok((value(second, LEADER).await > 0.0).then_some(())) };
    wait::until("the second replica leads", LIMIT, PAUSE, leads)
        .await
        .expect("leads");
    arena.deliver("after", arena.spec("1.0.0")).await;
    assert_eq!(arena.bundle("after").await, bytes("one"));
    let on_leases = |entry: &AuditEntry| entry.resource == "leases" && entry.namespace == OPERATOR_NAMESPACE;
    let asked = arena.cluster.audit(on_leases).expect("audit log");
    let verbs: BTreeSet<&str> = asked.iter().map(|entry| entry.verb.as_str()).collect();
    assert_eq!(
        verbs,
        BTreeSet::from(["create", "get", "update"]),
        "what the Role grants"
    );
    assert!(asked.iter().all(|entry| entry.code != 403), "{asked:?}");
}
