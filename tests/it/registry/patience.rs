//! Registries that are slow, overloaded or broken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use policy_operator::pipeline::ports::{Registry as _, RegistryError};
use rstest::rstest;

use super::*;

/// Asks for a manifest while the first `failures` requests are answered with `answer`.
async fn ask(failures: usize, answer: Answer) -> (Result<(), RegistryError>, usize, Duration) {
    let count = AtomicUsize::new(0);
    let server = plain(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) < failures {
            answer.clone()
        } else {
            manifest_answer(b"{}")
        }
    })
    .await;
    let started = Instant::now();
    let asked = setup()
        .client
        .manifest(&repository(&server.host()), &tagged("1.0"), &insecure())
        .await;
    (asked.map(|_| ()), server.asked().len(), started.elapsed())
}

#[rstest]
#[case::internal(500)]
#[case::bad_gateway(502)]
#[case::unavailable(503)]
#[case::gateway_timeout(504)]
#[tokio::test]
async fn transient_failures_are_retried_and_lasting_ones_reported(#[case] status: u16) {
    let (asked, count, _) = ask(2, Answer::status(status)).await;
    assert_eq!((asked, count), (Ok(()), 3));
    let (asked, count, _) = ask(9, Answer::status(status)).await;
    assert!(
        matches!(asked, Err(RegistryError::Unavailable { status: told, .. }) if told == status),
        "{asked:?}"
    );
    assert_eq!(count, 3);
}

#[tokio::test]
async fn a_status_that_will_not_change_is_reported_at_once() {
    let (asked, count, _) = ask(9, Answer::status(501)).await;
    assert!(
        matches!(asked, Err(RegistryError::Unavailable { status: 501, .. })),
        "{asked:?}"
    );
    assert_eq!(count, 1);
}

/// F01: the client does not wait for long itself.
#[rstest]
#[case::too_many("120", 429, 120)]
#[case::unavailable("90", 503, 90)]
#[case::for_ever("99999999", 429, 3600)]
#[tokio::test]
async fn a_long_wait_is_the_callers(#[case] after: &str, #[case] status: u16, #[case] seconds: u64) {
    let (asked, count, elapsed) = ask(9, Answer::status(status).header("Retry-After", after)).await;
    let expected = Duration::from_secs(seconds);
    assert!(
        matches!(asked, Err(RegistryError::RateLimited { wait, .. }) if wait == expected),
        "{asked:?}"
    );
    assert_eq!(count, 1);
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test]
async fn a_wait_may_be_a_date() {
    let date = "Sat, 21 Nov 2099 00:00:00 GMT";
    let (asked, _, _) = ask(9, Answer::status(429).header("Retry-After", date)).await;
    let hour = Duration::from_hours(1);
    assert!(
        matches!(asked, Err(RegistryError::RateLimited { wait, .. }) if wait == hour),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_short_wait_is_waited_for() {
    let (asked, count, elapsed) = ask(1, Answer::status(429).header("Retry-After", "1")).await;
    assert_eq!((asked, count), (Ok(()), 2));
    assert!(elapsed >= Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test]
async fn a_limit_without_a_time_is_reported_after_some_attempts() {
    let (asked, count, _) = ask(9, Answer::status(429)).await;
    assert!(matches!(asked, Err(RegistryError::RateLimited { .. })), "{asked:?}");
    assert_eq!(count, 3);
}

#[rstest]
#[case::after_the_headers(manifest_answer(b"{}").stalling_after(0))]
#[case::in_the_middle(manifest_answer(b"{}").stalling_after(1))]
#[tokio::test]
async fn a_registry_that_sends_nothing_is_given_up(#[case] answer: Answer) {
    let (asked, _, elapsed) = ask(9, answer).await;
    assert!(matches!(asked, Err(RegistryError::Unreachable { .. })), "{asked:?}");
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

#[tokio::test]
async fn a_port_without_a_listener_is_reported_with_its_host() {
    let port = policy_operator_harness::ports::free().unwrap();
    let host = format!("127.0.0.1:{port}");
    let asked = setup()
        .client
        .manifest(&repository(&host), &tagged("1.0"), &insecure())
        .await;
    let error = asked.unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { host: ref told, .. } if *told == host),
        "{error}"
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_unreachable() {
    // A label of 64 letters fails in the resolver itself, so that no name server is asked.
    let host = format!("{}.example:1", "a".repeat(64));
    let asked = setup()
        .client
        .manifest(&repository(&host), &tagged("1.0"), &insecure())
        .await;
    assert!(matches!(asked, Err(RegistryError::Unreachable { .. })), "{asked:?}");
}

#[tokio::test]
async fn two_downloads_of_one_blob_do_not_disturb_each_other() {
    let server = plain(|_| Answer::ok(vec![7; 100_000])).await;
    let (setup, repository, layer) = (setup(), repository(&server.host()), layer(&vec![7; 100_000]));
    let access = insecure();
    let one = setup.client.blob(&repository, &layer, &access);
    let other = setup.client.blob(&repository, &layer, &access);
    let (one, other) = tokio::join!(one, other);
    assert_eq!(read(one.unwrap().as_ref()), read(other.unwrap().as_ref()));
}
