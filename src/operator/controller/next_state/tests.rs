use std::sync::Arc;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::operator::delivery::config_map::ApplyError;
use crate::operator::kube_error::KubeError;
use crate::operator::steps::outcome::{Failure, StepError};
use crate::operator::steps::validate::ValidateError;
use crate::pipeline::ports::RegistryError;
use crate::pipeline::resolve::ResolveError;

const INTERVAL: Duration = Duration::from_mins(5);

fn failures(count: u32) -> ObjectState {
    ObjectState {
        failures: count,
        ..ObjectState::default()
    }
}

fn failure(error: impl Into<StepError>) -> Outcome {
    Outcome::Failure(Failure::from(error.into()))
}

fn registry(error: RegistryError) -> Outcome {
    failure(Arc::new(ResolveError::QueryRegistry(error)))
}

fn unavailable() -> Outcome {
    registry(RegistryError::Unavailable {
        host: "ghcr.io".into(),
        resource: "acme/p:1".into(),
        status: 503,
    })
}

fn ended(outcome: &Outcome, written: StatusWrite, jitter: f64) -> EndedRun<'_> {
    let now = Instant::now();
    EndedRun {
        trigger: Some(Trigger::Due),
        request: ReconcileRequest::default(),
        started: now,
        ended: now,
        outcome,
        written,
        interval: INTERVAL,
        jitter,
    }
}

/// The delay after a run that was reported, without jitter.
fn delay(before: ObjectState, outcome: &Outcome) -> Option<Duration> {
    next_state(before, ended(outcome, StatusWrite::UpToDate, 0.0)).1
}

#[rstest]
#[case(0, 1)]
#[case(1, 2)]
#[case(4, 16)]
#[case(8, 256)]
#[case(9, 300)]
#[case(u32::MAX, 300)]
fn retries_double_up_to_the_interval(#[case] before: u32, #[case] seconds: u64) {
    assert_eq!(
        delay(failures(before), &unavailable()),
        Some(Duration::from_secs(seconds))
    );
}

#[test]
fn what_only_a_change_helps_is_looked_at_again_at_the_interval() {
    let outcome = failure(ValidateError::RequireVerification);
    assert_eq!(delay(ObjectState::default(), &outcome), Some(INTERVAL));
}

/// What a user changed may be younger than the result that the run shared with others.
#[rstest]
#[case::unknown(Trigger::SpecChanged, None, REVALIDATION)]
#[case::from_before_the_run(Trigger::Requested, Some(1), REVALIDATION)]
#[case::from_the_run(Trigger::Requested, Some(0), INTERVAL)]
#[case::for_nobody(Trigger::Due, Some(1), INTERVAL)]
fn a_result_that_a_user_may_have_outdated_is_looked_at_again_soon(
    #[case] trigger: Trigger,
    #[case] seconds_before: Option<u64>,
    #[case] expected: Duration,
) {
    let started = Instant::now() + INTERVAL;
    let outcome = Outcome::Failure(Failure {
        resolved_at: seconds_before.and_then(|seconds| started.checked_sub(Duration::from_secs(seconds))),
        ..Failure::from(StepError::from(ValidateError::RequireVerification))
    });
    let ended = EndedRun {
        trigger: Some(trigger),
        started,
        ..ended(&outcome, StatusWrite::UpToDate, 0.0)
    };
    let (state, delay) = next_state(ObjectState::default(), ended);
    assert_eq!(delay, Some(expected));
    assert_eq!(state.revalidate_after, (expected == REVALIDATION).then_some(started));
}

#[test]
fn a_user_who_requests_a_run_starts_the_backoff_again() {
    let outcome = unavailable();
    let ended = EndedRun {
        trigger: Some(Trigger::Requested),
        ..ended(&outcome, StatusWrite::UpToDate, 0.0)
    };
    assert_eq!(next_state(failures(8), ended).1, Some(FIRST_RETRY));
}

#[test]
fn a_registry_that_asks_for_time_gets_at_least_that() {
    let wait = Duration::from_hours(1);
    let outcome = registry(RegistryError::RateLimited {
        host: "ghcr.io".into(),
        wait,
    });
    assert_eq!(delay(ObjectState::default(), &outcome), Some(wait));
}

#[test]
fn a_suspended_object_sleeps_and_its_failures_are_forgotten() {
    let (state, delay) = next_state(failures(4), ended(&Outcome::Suspended, StatusWrite::UpToDate, 0.5));
    assert_eq!((state.failures, state.last_run, delay), (0, None, None));
}

#[test]
fn a_run_that_was_reported_is_remembered_with_the_version_it_made() {
    let (state, delay) = next_state(failures(2), ended(&unavailable(), StatusWrite::Patched(Some(7)), 0.0));
    let last = state.last_run.unwrap();
    assert_eq!((state.failures, last.status_version), (3, Some(7)));
    assert_eq!(Some(last.next_due - last.ended), delay);
}

fn conflict() -> Outcome {
    let status = kube::core::Status::failure("the object has been modified", "Conflict").with_code(409);
    let error = KubeError::new("write ConfigMap 'a'", kube::Error::Api(Box::new(status)));
    failure(ApplyError::Write(error))
}

#[rstest]
#[case::of_the_status(&unavailable(), StatusWrite::Conflict)]
#[case::of_the_config_map(&conflict(), StatusWrite::Withheld)]
#[case::that_was_reported(&conflict(), StatusWrite::Patched(None))]
fn a_conflict_is_a_new_run_at_once_and_no_failure(#[case] outcome: &Outcome, #[case] written: StatusWrite) {
    let (state, delay) = next_state(failures(2), ended(outcome, written, 0.0));
    assert_eq!(
        (state.failures, state.conflicts, delay),
        (2, 1, Some(FIRST_CONFLICT_RETRY))
    );
    assert_eq!(
        state.last_run.unwrap().is_reported,
        written == StatusWrite::Patched(None)
    );
}

/// Or a client that writes all the time would cost a run for each of its writes, and keep the object without conditions.
#[test]
fn conflicts_in_a_row_come_more_and_more_slowly_and_are_reported() {
    let (mut state, mut delays, mut tolerated) = (ObjectState::default(), Vec::new(), 0);
    for _ in 0..12 {
        tolerated += u32::from(state.tolerates(&conflict()));
        let (next, delay) = next_state(state, ended(&conflict(), StatusWrite::Withheld, 0.0));
        state = next;
        delays.push(delay.unwrap());
    }
    assert_eq!(tolerated, TOLERATED_CONFLICTS);
    assert!(delays.is_sorted());
    assert_eq!(delays.last(), Some(&LAST_CONFLICT_RETRY));
    let (state, _) = next_state(state, ended(&unavailable(), StatusWrite::UpToDate, 0.0));
    assert_eq!((state.conflicts, state.tolerates(&unavailable())), (0, false));
}

#[test]
fn a_run_that_could_not_be_reported_is_not_taken_for_done() {
    let outcome = failure(ValidateError::RequireVerification);
    let (state, delay) = next_state(failures(1), ended(&outcome, StatusWrite::Failed, 0.0));
    assert_eq!((state.failures, delay), (2, Some(Duration::from_secs(2))));
    assert!(!state.last_run.unwrap().is_reported);
}

proptest! {
    #[test]
    fn jitter_only_ever_adds_a_tenth(before in any::<u32>(), jitter in any::<f64>()) {
        let exact = delay(failures(before), &unavailable()).unwrap();
        let (_, jittered) = next_state(failures(before), ended(&unavailable(), StatusWrite::UpToDate, jitter));
        let jittered = jittered.unwrap();
        prop_assert!(jittered >= exact && jittered <= exact.mul_f64(1.11));
    }
}

#[test]
fn restorations_in_a_row_are_counted() {
    let outcome = unavailable();
    let after = |before: ObjectState, trigger| {
        let run = EndedRun {
            trigger: Some(trigger),
            ..ended(&outcome, StatusWrite::UpToDate, 0.0)
        };
        next_state(before, run).0
    };
    let twice = after(
        after(ObjectState::default(), Trigger::ConfigMapChanged),
        Trigger::ConfigMapChanged,
    );
    assert_eq!(twice.restorations, 2);
    assert_eq!(after(twice, Trigger::Due).restorations, 0);
}
