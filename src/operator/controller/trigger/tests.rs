use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::operator::controller::state::LastRun;
use crate::operator::delivery::config_map::testing::delivered_to;
use crate::operator::identity::ObjectVersion;

const INTERVAL: Duration = Duration::from_mins(5);

/// An object as its watch shows it, what is remembered of it and of its ConfigMap, and the time. At first everything is
/// as the last run left it, a minute ago.
struct Case {
    object: Value,
    state: ObjectState,
    config_map: Option<ObjectVersion>,
    now: Instant,
}

fn config_map(uid: &str, version: &str) -> ObjectVersion {
    ObjectVersion {
        uid: uid.into(),
        resource_version: version.into(),
    }
}

impl Case {
    fn up_to_date() -> Self {
        let started = Instant::now();
        let request = ReconcileRequest {
            generation: Some(3),
            requested_at: Some("first".into()),
        };
        Self {
            object: json!({
                "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage",
                "metadata": {
                    "name": "authz", "namespace": "acme", "uid": "1", "generation": 3, "resourceVersion": "20",
                    "annotations": { "reconcile.opcr.io/requestedAt": "first" },
                },
                "spec": { "image": "ghcr.io/acme/authz:1.0.0" },
                "status": { "observedGeneration": 3, "lastHandledReconcileAt": "first" },
            }),
            state: ObjectState {
                config_maps: delivered_to("authz-bundle"),
                last_run: Some(LastRun {
                    request,
                    started,
                    ended: started,
                    next_due: started + INTERVAL,
                    is_reported: true,
                    status_version: Some(20),
                }),
                ..ObjectState::default()
            },
            config_map: Some(config_map("map", "7")),
            now: started + Duration::from_mins(1),
        }
    }

    fn request(&mut self, value: &str) {
        self.object["metadata"]["annotations"]["reconcile.opcr.io/requestedAt"] = json!(value);
    }

    fn decide(&self) -> Decision {
        let object = serde_json::from_value(self.object.clone()).unwrap();
        let is_intact = self
            .state
            .config_maps
            .is_intact(|_, version| self.config_map.as_ref() == Some(version));
        decide(&object, &self.state, is_intact, self.now)
    }
}

#[test]
fn an_object_is_left_alone_until_it_is_due() {
    let mut case = Case::up_to_date();
    assert_eq!(case.decide(), Decision::Wait(Duration::from_mins(4)));
    case.now += Duration::from_mins(4);
    assert_eq!(case.decide(), Decision::Run(Trigger::Due));
}

type Change = fn(&mut Case);

#[rstest]
#[case::a_newer_spec(|case: &mut Case| case.object["metadata"]["generation"] = json!(4), Trigger::SpecChanged)]
#[case::another_request(|case: &mut Case| case.request("second"), Trigger::Requested)]
#[case::a_changed_config_map(|case: &mut Case| case.config_map = Some(config_map("map", "8")), Trigger::ConfigMapChanged)]
#[case::a_replaced_config_map(|case: &mut Case| case.config_map = Some(config_map("another", "7")), Trigger::ConfigMapChanged)]
#[case::a_deleted_config_map(|case: &mut Case| case.config_map = None, Trigger::ConfigMapChanged)]
#[case::a_restart(|case: &mut Case| case.state = ObjectState::default(), Trigger::Due)]
#[case::a_restart_after_a_change(
    |case: &mut Case| { case.state = ObjectState::default(); case.object["metadata"]["generation"] = json!(4); },
    Trigger::SpecChanged
)]
#[case::a_restart_after_a_request(
    |case: &mut Case| { case.state = ObjectState::default(); case.request("second"); },
    Trigger::Requested
)]
fn a_change_is_a_run_at_once(#[case] change: Change, #[case] trigger: Trigger) {
    let mut case = Case::up_to_date();
    change(&mut case);
    assert_eq!(case.decide(), Decision::Run(trigger));
}

#[test]
fn what_is_being_deleted_is_left_alone_and_what_is_suspended_says_so() {
    let mut case = Case::up_to_date();
    case.config_map = None;
    case.object["spec"]["suspend"] = json!(true);
    assert_eq!(case.decide(), Decision::Suspend);
    case.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(case.decide(), Decision::Skip);
}

/// Status could not be written, so it still says what the run before that did.
#[rstest]
#[case::of_the_clock(|_: &mut Case| {}, Trigger::Due)]
#[case::of_a_spec(|case: &mut Case| case.object["status"]["observedGeneration"] = json!(2), Trigger::SpecChanged)]
#[case::of_a_user(|case: &mut Case| case.object["status"]["lastHandledReconcileAt"] = json!("none"), Trigger::Requested)]
fn a_run_that_was_not_reported_is_run_again_when_it_is_due(#[case] change: Change, #[case] trigger: Trigger) {
    let mut case = Case::up_to_date();
    change(&mut case);
    case.state.last_run.as_mut().unwrap().is_reported = false;
    assert_eq!(case.decide(), Decision::Wait(Duration::from_mins(4)));
    case.now += Duration::from_mins(4);
    assert_eq!(case.decide(), Decision::Run(trigger));
}

/// Each write of a client that writes all the time would else be a run.
#[test]
fn after_a_conflict_a_changed_config_map_waits_and_a_user_does_not() {
    let mut case = Case::up_to_date();
    (case.state.conflicts, case.config_map) = (1, None);
    assert_eq!(case.decide(), Decision::Wait(Duration::from_mins(4)));
    case.request("second");
    assert_eq!(case.decide(), Decision::Run(Trigger::Requested));
}

#[rstest]
#[case::first(0, 0)]
#[case::second(1, 1)]
#[case::fourth(3, 4)]
#[case::hundredth(99, 30)]
fn a_config_map_that_is_changed_again_and_again_is_restored_less_and_less_often(
    #[case] restorations: u32,
    #[case] seconds: u64,
) {
    let mut case = Case::up_to_date();
    case.config_map = None;
    case.state.restorations = restorations;
    let started = case.state.last_run.as_ref().unwrap().started;
    let due = started + Duration::from_secs(seconds);
    case.now = due;
    assert_eq!(case.decide(), Decision::Run(Trigger::ConfigMapChanged));
    if seconds > 0 {
        case.now = due.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(case.decide(), Decision::Wait(Duration::from_millis(1)));
    }
}

#[test]
fn a_request_that_is_taken_back_asks_for_nothing() {
    let mut case = Case::up_to_date();
    case.object["metadata"]["annotations"] = json!({});
    assert!(matches!(case.decide(), Decision::Wait(_)));
    case.state.last_run = None;
    assert_eq!(case.decide(), Decision::Run(Trigger::Due));
}

#[test]
fn requests_are_answered_once_a_second() {
    let mut case = Case::up_to_date();
    case.request("second");
    case.now -= Duration::from_millis(59_600);
    assert_eq!(case.decide(), Decision::Wait(Duration::from_millis(600)));
}

/// What a run on such a view finds was done already would be done again, and told twice.
#[rstest]
#[case::of_the_status(|case: &mut Case| case.object["metadata"]["resourceVersion"] = json!("19"))]
#[case::of_the_spec(|case: &mut Case| case.object["metadata"]["generation"] = json!(2))]
fn nothing_is_done_on_a_view_that_is_older_than_what_was_written(#[case] change: Change) {
    let mut case = Case::up_to_date();
    change(&mut case);
    case.config_map = None;
    case.now -= Duration::from_secs(55);
    assert_eq!(case.decide(), Decision::Wait(STALE_VIEW_RETRY));
    case.now += STALE_VIEW_LIMIT;
    assert!(
        matches!(case.decide(), Decision::Run(_)),
        "a restored cluster is believed"
    );
}

#[test]
fn a_server_that_does_not_count_versions_does_not_stop_runs() {
    let mut case = Case::up_to_date();
    case.object["metadata"]["resourceVersion"] = json!("opaque");
    case.object["metadata"]["generation"] = json!(4);
    assert_eq!(case.decide(), Decision::Run(Trigger::SpecChanged));
}

#[rstest]
#[case::a_change_gets_one_that_is_nearly_new(Trigger::SpecChanged, 0, 2)]
#[case::what_failed_gets_one_that_is_nearly_new(Trigger::Due, 1, 2)]
#[case::the_clock_shares(Trigger::Due, 0, 30)]
#[case::a_changed_config_map_shares(Trigger::ConfigMapChanged, 0, 30)]
fn how_old_a_result_may_be_depends_on_the_trigger(
    #[case] trigger: Trigger,
    #[case] failures: u32,
    #[case] seconds: u64,
) {
    let started = Instant::now() + INTERVAL;
    let state = ObjectState {
        failures,
        ..ObjectState::default()
    };
    let expected = started.checked_sub(Duration::from_secs(seconds)).unwrap();
    assert_eq!(trigger.freshness(&state, INTERVAL, started), Freshness::Since(expected));
    let revalidated = ObjectState {
        revalidate_after: Some(started),
        ..state.clone()
    };
    assert_eq!(
        trigger.freshness(&revalidated, INTERVAL, started),
        Freshness::Since(started)
    );
    assert_eq!(Trigger::Requested.freshness(&state, INTERVAL, started), Freshness::New);
}
