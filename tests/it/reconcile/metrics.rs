//! What Prometheus sees of the operator's work.

use std::collections::BTreeMap;

use policy_operator_harness::operator::Operator;
use policy_operator_harness::wait;

use super::{Arena, LIMIT, PAUSE, bytes};

/// The value of one series.
pub(super) async fn value(operator: &Operator, series: &str) -> f64 {
    let text = operator.metrics().await.expect("metrics");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("number"))
}

/// Waits until the operator has ended `more` runs with this reason.
pub(super) async fn until_runs(operator: &Operator, reason: &str, more: u32) {
    let series = format!("policy_operator_reconcile_total{{reason=\"{reason}\"}}");
    let expected = value(operator, &series).await + f64::from(more);
    let counted = || async { Ok((value(operator, &series).await >= expected).then_some(())) };
    wait::until("further runs", LIMIT, PAUSE, counted).await.expect("runs");
}

/// How many series each family has.
fn series(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_delivery_is_counted_and_more_objects_make_no_more_series() {
    let arena = Arena::open("metrics").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let succeeded = "policy_operator_reconcile_total{reason=\"Succeeded\"}";
    let counted = || async { Ok((value(&arena.operator, succeeded).await > 0.0).then_some(())) };
    wait::until("the run is counted, after its status", LIMIT, PAUSE, counted)
        .await
        .expect("counted");
    let size = f64::from(u32::try_from(bytes("one").len()).expect("small"));
    for (name, expected) in [
        (succeeded, 1.0),
        (
            "policy_operator_reconcile_duration_seconds_count{result=\"success\"}",
            1.0,
        ),
        ("policy_operator_bundle_bytes_total", size),
        (
            "policy_operator_cache_requests_total{cache=\"bundle\",result=\"miss\"}",
            1.0,
        ),
        (
            "policy_operator_registry_requests_total{type=\"blob\",code=\"2xx\"}",
            1.0,
        ),
        ("policy_operator_leader", 1.0),
        ("policy_operator_panics_total", 0.0),
    ] {
        let found = value(&arena.operator, name).await;
        assert!(
            (found - expected).abs() < f64::EPSILON,
            "{name} is {found}:\n{}",
            arena.operator.metrics().await.expect("metrics")
        );
    }
    let before = series(&arena.operator.metrics().await.expect("metrics"));
    let names: Vec<String> = (0..50).map(|number| format!("app-{number}")).collect();
    for name in &names {
        arena.create(name, arena.spec("1.0.0")).await;
    }
    for name in &names {
        arena.ready(name).await;
    }
    let after = arena.operator.metrics().await.expect("metrics");
    assert!(!after.contains("app-"), "no object's name is a label");
    for (family, count) in series(&after) {
        let known = before.get(&family).copied().unwrap_or_default();
        assert!(count <= known.max(20), "{family}: {known} series, then {count}");
    }
}
