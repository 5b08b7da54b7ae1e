use std::sync::Arc;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::operator::delivery::config_map::testing::applied;
use crate::operator::reconcile::outcome::{Failure, StepError};
use crate::operator::reconcile::validate::ValidateError;
use crate::pipeline::ports::RegistryError;
use crate::pipeline::resolve::ResolveError;

const INTERVAL: Duration = Duration::from_mins(5);

fn key(namespace: &str, name: &str, uid: &str) -> ObjectKey {
    ObjectKey {
        object: NamespacedName::new(namespace, name),
        uid: uid.into(),
    }
}

fn failures(count: u32) -> ObjectState {
    ObjectState {
        failures: count,
        ..ObjectState::default()
    }
}

#[test]
fn an_object_has_its_state_and_its_namesakes_have_none() {
    let states = StateCache::default();
    states.put(&key("acme", "authz", "1"), failures(3));
    assert_eq!(states.get(&key("acme", "authz", "1")).failures, 3);
    for other in [
        key("acme", "authz", "2"),
        key("other", "authz", "1"),
        key("acme", "other", "1"),
    ] {
        assert_eq!(states.get(&other).failures, 0);
    }
}

#[test]
fn an_object_that_is_made_again_replaces_the_state_of_the_old_one() {
    let states = StateCache::default();
    let (old, new) = (key("acme", "authz", "1"), key("acme", "authz", "2"));
    states.put(&old, failures(3));
    states.put(&new, failures(1));
    assert_eq!((states.get(&old).failures, states.get(&new).failures), (0, 1));
    states.forget(&NamespacedName::new("acme", "authz"));
    assert_eq!(states.get(&new).failures, 0);
}

fn delivered_to(config_map: &str) -> ObjectState {
    let mut state = ObjectState::default();
    state.config_map.applied = Some(applied(config_map));
    state
}

#[test]
fn a_config_map_leads_to_the_object_that_delivered_to_it_last() {
    let states = StateCache::default();
    let object = key("acme", "authz", "1");
    let leads = |config_map| {
        let object = states.deliverer(&NamespacedName::new("acme", config_map))?;
        Some(object.name.to_string())
    };
    states.put(&object, delivered_to("one"));
    assert_eq!((leads("one").as_deref(), leads("two")), (Some("authz"), None));
    assert_eq!(states.deliverer(&NamespacedName::new("other", "one")), None);
    states.put(&object, delivered_to("two"));
    assert_eq!((leads("one"), leads("two").as_deref()), (None, Some("authz")));
    states.put(&key("acme", "rival", "2"), delivered_to("two"));
    states.forget(&NamespacedName::new("acme", "authz"));
    assert_eq!(leads("two").as_deref(), Some("rival"), "what another took over stays");
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

fn ended(outcome: &Outcome, written: Written, jitter: f64) -> EndedRun<'_> {
    let now = Instant::now();
    EndedRun {
        request: Request::default(),
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
    next_state(before, ended(outcome, Written::Shown(None), 0.0)).1
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

#[test]
fn what_may_have_failed_before_it_was_asked_for_is_looked_at_again_soon() {
    let outcome = failure(ValidateError::RequireVerification);
    let before = ObjectState {
        revalidate_after: Some(Instant::now()),
        ..ObjectState::default()
    };
    assert_eq!(delay(before, &outcome), Some(REVALIDATION));
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
    let (state, delay) = next_state(failures(4), ended(&Outcome::Suspended, Written::Shown(None), 0.5));
    assert_eq!((state.failures, state.last_run, delay), (0, None, None));
}

#[test]
fn a_run_that_was_reported_is_remembered_with_the_version_it_made() {
    let (state, delay) = next_state(failures(2), ended(&unavailable(), Written::Shown(Some(7)), 0.0));
    let last = state.last_run.unwrap();
    assert_eq!((state.failures, last.status_version), (3, Some(7)));
    assert_eq!(Some(last.next_due - last.ended), delay);
}

#[test]
fn a_conflict_is_a_new_run_at_once_and_no_failure() {
    let (state, delay) = next_state(failures(0), ended(&Outcome::Suspended, Written::Conflict, 0.0));
    assert_eq!((state.failures, state.last_run, delay), (0, None, Some(CONFLICT_RETRY)));
}

#[test]
fn a_run_that_could_not_be_reported_is_not_taken_for_done() {
    let (state, delay) = next_state(failures(1), ended(&Outcome::Suspended, Written::Failed, 0.0));
    assert_eq!(
        (state.failures, state.last_run, delay),
        (2, None, Some(Duration::from_secs(2)))
    );
}

proptest! {
    #[test]
    fn jitter_only_ever_adds_a_tenth(before in any::<u32>(), jitter in any::<f64>()) {
        let exact = delay(failures(before), &unavailable()).unwrap();
        let (_, jittered) = next_state(failures(before), ended(&unavailable(), Written::Shown(None), jitter));
        let jittered = jittered.unwrap();
        prop_assert!(jittered >= exact && jittered <= exact.mul_f64(1.11));
    }
}
