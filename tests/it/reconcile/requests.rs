//! A person who has repaired something asks for a run, and does not wait for what was planned after the failure.

use std::time::{Duration, Instant};

use policy_operator_harness::faulty_proxy::{Fault, FaultyProxy};
use rstest::rstest;

use super::metrics::until_runs;
use super::{Arena, REPOSITORY, bytes, condition, spec, status_of};

/// Runs that fail before the repair. The pause after the last is sixteen seconds at least.
const FAILURES: u32 = 5;
/// "At once", on a machine that does other things, too.
const AT_ONCE: Duration = Duration::from_secs(12);

/// The answer is from after the repair, and comes at once: neither the pause that grew with every failure nor the time
/// that the registry asked for is waited out.
#[rstest]
#[case::an_outage("requests-outage", Fault::Status(503), "RegistryUnavailable", FAILURES)]
#[case::a_rate_limit("requests-limit", Fault::RateLimited(300), "RateLimited", 1)]
#[tokio::test]
async fn a_request_after_a_repair_is_answered_at_once(
    #[case] name: &str,
    #[case] fault: Fault,
    #[case] reason: &str,
    #[case] failures: u32,
) {
    let arena = Arena::open(name).await;
    arena.push("1.0.0", "one").await;
    let proxy = FaultyProxy::start(arena.registry.host().to_owned(), 1)
        .await
        .expect("proxy");
    proxy.set(&[fault], 100);
    let image = format!("{}/{REPOSITORY}:1.0.0", proxy.host());
    let (_, ()) = tokio::join!(
        arena.create("app", spec(&image)),
        until_runs(&arena.operator, reason, failures)
    );
    arena.not_ready("app", reason).await;
    proxy.heal();
    let asked = Instant::now();
    let object = arena.run_again("app").await;
    let took = asked.elapsed();
    assert_eq!(
        status_of(&object, "Ready"),
        Some("True"),
        "{:?}",
        condition(&object, "Ready")
    );
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(arena.bundle("app").await, bytes("one"));
}
