use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rstest::rstest;

use super::*;

const ME: &str = "pod-a_1";
const OTHER: &str = "pod-b_2";

fn lease(version: &str, holder: &str, seconds: Option<i32>) -> Lease {
    Lease {
        metadata: ObjectMeta {
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: seconds,
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }),
    }
}

#[derive(Debug, PartialEq)]
enum Does {
    Creates,
    Holds,
    Waits,
}

/// What `ME` does on the last of a number of looks, each at so many seconds after the first.
fn last_of(looks: Vec<(u64, Option<Lease>)>) -> Does {
    let start = Instant::now();
    let mut view = View::default();
    let decide = |(second, lease)| view.decide(ME, lease, start + Duration::from_secs(second));
    match looks.into_iter().map(decide).last() {
        Some(Decision::Create) => Does::Creates,
        Some(Decision::Hold { .. }) => Does::Holds,
        Some(Decision::Wait { holder }) => {
            assert_eq!(holder, OTHER);
            Does::Waits
        }
        None => panic!("no look"),
    }
}

#[rstest]
#[case::nothing_there(vec![(0, None)], Does::Creates)]
#[case::deleted_meanwhile(vec![(0, Some(lease("1", OTHER, Some(15)))), (1, None)], Does::Creates)]
#[case::our_own(vec![(0, Some(lease("1", ME, Some(15))))], Does::Holds)]
#[case::our_own_is_never_too_old(vec![(0, Some(lease("1", ME, Some(15)))), (99, Some(lease("1", ME, Some(15))))], Does::Holds)]
#[case::released(vec![(0, Some(lease("1", "", Some(1))))], Does::Holds)]
#[case::first_sight_starts_the_clock(vec![(0, Some(lease("1", OTHER, Some(15))))], Does::Waits)]
#[case::just_before_expiry(vec![(0, Some(lease("1", OTHER, Some(15)))), (14, Some(lease("1", OTHER, Some(15))))], Does::Waits)]
#[case::at_expiry(vec![(0, Some(lease("1", OTHER, Some(15)))), (15, Some(lease("1", OTHER, Some(15))))], Does::Holds)]
#[case::renewed_in_between(vec![(0, Some(lease("1", OTHER, Some(15)))), (10, Some(lease("2", OTHER, Some(15)))), (24, Some(lease("2", OTHER, Some(15))))], Does::Waits)]
#[case::the_holders_duration_counts(vec![(0, Some(lease("1", OTHER, Some(60)))), (59, Some(lease("1", OTHER, Some(60))))], Does::Waits)]
#[case::deleted_and_made_again_starts_anew(vec![(0, Some(lease("1", OTHER, Some(15)))), (8, None), (16, Some(lease("1", OTHER, Some(15))))], Does::Waits)]
#[case::no_duration_protects_nobody(vec![(0, Some(lease("1", OTHER, None)))], Does::Holds)]
#[case::negative_duration_protects_nobody(vec![(0, Some(lease("1", OTHER, Some(-5))))], Does::Holds)]
fn a_lease_is_taken_only_when_it_is_free(#[case] looks: Vec<(u64, Option<Lease>)>, #[case] expected: Does) {
    assert_eq!(last_of(looks), expected);
}

#[test]
fn times_written_by_others_do_not_matter() {
    let mut skewed = lease("1", OTHER, Some(15));
    let long_ago = Timestamp::from_second(1).expect("timestamp");
    skewed.spec.get_or_insert_default().renew_time =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(long_ago));
    assert_eq!(
        last_of(vec![(0, Some(skewed.clone())), (14, Some(skewed))]),
        Does::Waits
    );
}

fn spec(lease: Lease) -> LeaseSpec {
    lease.spec.expect("spec")
}

#[test]
fn taking_counts_a_transition_and_renewing_does_not() {
    let (first, second) = (
        Timestamp::from_second(100).expect("time"),
        Timestamp::from_second(200).expect("time"),
    );
    let taken = held_by(ME, lease("1", OTHER, Some(60)), Duration::from_secs(15), first);
    let renewed = spec(held_by(ME, taken.clone(), Duration::from_secs(15), second));
    assert_eq!(taken.metadata.resource_version.as_deref(), Some("1"));
    let taken = spec(taken);
    assert_eq!(
        (taken.lease_transitions, taken.lease_duration_seconds),
        (Some(4), Some(15))
    );
    assert_eq!(
        (renewed.lease_transitions, renewed.holder_identity.as_deref()),
        (Some(4), Some(ME))
    );
    assert_eq!(renewed.acquire_time.map(|time| time.0), Some(first));
    assert_eq!(renewed.renew_time.map(|time| time.0), Some(second));
}

#[test]
fn a_new_lease_starts_with_no_transition() {
    let created = lease::named(
        held_by(ME, Lease::default(), Duration::from_secs(15), Timestamp::now()),
        "op",
    );
    assert_eq!(created.metadata.name.as_deref(), Some("op"));
    assert_eq!(spec(created).lease_transitions, Some(0));
}

#[test]
fn releasing_leaves_no_holder_and_keeps_the_count() {
    let spec = spec(released(lease("7", ME, Some(15)), Timestamp::now()));
    assert_eq!(spec.holder_identity.as_deref(), Some(""));
    assert_eq!(
        (spec.lease_duration_seconds, spec.lease_transitions),
        (Some(1), Some(3))
    );
}

#[rstest]
#[case::default_of_kubernetes(15_000, 10_000, 2_000, true)]
#[case::deadline_as_long_as_the_lease(10_000, 10_000, 2_000, false)]
#[case::no_room_for_a_retry(15_000, 2_400, 2_000, false)]
#[case::never_waits(15_000, 10_000, 0, false)]
#[case::fraction_of_a_second(1_500, 1_000, 100, false)]
fn timing_leaves_no_room_for_two_leaders(
    #[case] lease: u64,
    #[case] renew: u64,
    #[case] retry: u64,
    #[case] accepted: bool,
) {
    let milliseconds = Duration::from_millis;
    let timing = Timing::new(milliseconds(lease), milliseconds(renew), milliseconds(retry));
    assert_eq!(timing.is_ok(), accepted, "{timing:?}");
}

#[test]
fn identities_differ_for_the_same_pod() {
    assert!(identity("pod-a").starts_with("pod-a_"));
    assert_ne!(identity("pod-a"), identity("pod-a"));
}
