use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::domain::bundle::BundleFacts;
use crate::domain::digest::Digest;
use crate::domain::reference::ImageReference;
use crate::domain::revision::{ImageRevision, Revision};
use crate::operator::delivery::ConfigMapDelivery;
use crate::operator::delivery::config_map::{ApplyError, ObserveError};
use crate::operator::identity::ObjectKey;
use crate::operator::steps::validate::ValidateError;
use crate::pipeline::ports::RegistryError;
use crate::pipeline::resolve::ResolveError;

fn object(generation: i64) -> PolicyImage {
    serde_json::from_value(json!({
        "apiVersion": "opcr.io/v1alpha1",
        "kind": "PolicyImage",
        "metadata": { "name": "authz", "namespace": "acme", "uid": "1", "generation": generation },
        "spec": { "image": "ghcr.io/acme/authz:1.0.0" },
    }))
    .unwrap()
}

fn success(content: &str, verification: Verification) -> Outcome {
    let image: ImageReference = "ghcr.io/acme/authz:1.0.0".parse().unwrap();
    let facts = BundleFacts {
        digest: Digest::of(content.as_bytes()),
        size: 1234,
        revision: "r1".into(),
        roots: vec!["app".into()],
        rego_version: Some(1),
        files: 1,
    };
    Outcome::Success(Box::new(Success {
        revision: Revision::Image(ImageRevision {
            repository: image.repository().clone(),
            digest: Digest::of(format!("manifest of {content}").as_bytes()),
            tag: image.tag().cloned(),
        }),
        resolved_at: Instant::now(),
        semver_tag: None,
        verification,
        deliveries: vec![Delivery::ConfigMap(target())],
        bundle: Some(BundleSummary {
            facts: Arc::new(facts),
            annotations: Arc::default(),
        }),
    }))
}

fn target() -> ConfigMapDelivery {
    ConfigMapDelivery {
        owner: ObjectKey::of(&object(1).metadata).unwrap(),
        name: "authz-bundle".into(),
        key: "bundle.tar.gz".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn signed() -> Verification {
    Verification::Signed {
        authorities: vec!["release".into()],
        trust_digest: Digest::of(b"trust"),
    }
}

fn failure(error: impl Into<StepError>) -> Outcome {
    Outcome::Failure(Failure::from(error.into()))
}

fn unavailable() -> Outcome {
    let error = RegistryError::Unavailable {
        host: "ghcr.io".into(),
        resource: "acme/authz:1.0.0".into(),
        status: 503,
    };
    failure(Arc::new(ResolveError::QueryRegistry(error)))
}

fn foreign() -> Outcome {
    let error = ObserveError::Foreign {
        name: "authz-bundle".into(),
    };
    after_verification(error)
}

fn too_large() -> Outcome {
    let error = ApplyError::FitConfigMap {
        size: 2_000_000,
        limit: 1_048_000,
    };
    after_verification(error)
}

fn after_verification(error: impl Into<StepError>) -> Outcome {
    Outcome::Failure(Failure {
        verification: Some(signed()),
        ..Failure::from(error.into())
    })
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn after(object: &PolicyImage, outcome: &Outcome, second: i64) -> PolicyImage {
    PolicyImage {
        status: Some(next(object, outcome, time(second))),
        ..object.clone()
    }
}

fn shown(object: &PolicyImage) -> Value {
    serde_json::to_value(object.status.as_ref().unwrap()).unwrap()
}

fn condition<'a>(object: &'a PolicyImage, type_: &str) -> Option<&'a Condition> {
    object
        .status
        .as_ref()
        .unwrap()
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

#[test]
fn a_first_good_run_reports_everything() {
    insta::assert_json_snapshot!(shown(&after(&object(1), &success("v1", signed()), 100)));
}

#[test]
fn without_verification_status_says_so() {
    let object = after(&object(1), &success("v1", Verification::NotConfigured), 100);
    insta::assert_json_snapshot!(condition(&object, VERIFIED));
    assert_eq!(object.status.unwrap().verification, None);
}

#[test]
fn a_failure_keeps_what_serves_and_says_what_it_is() {
    let good = after(&object(1), &success("v1", signed()), 100);
    insta::assert_json_snapshot!(shown(&after(&good, &unavailable(), 200)));
}

#[test]
fn a_first_failure_leaves_no_condition_out() {
    insta::assert_json_snapshot!(shown(&after(
        &object(1),
        &failure(ValidateError::RequireVerification),
        100
    )));
}

#[test]
fn a_taken_name_is_not_called_delivered() {
    let object = after(&object(1), &foreign(), 100);
    assert_eq!(condition(&object, DELIVERED).unwrap().status, "False");
    assert_eq!(condition(&object, VERIFIED).unwrap().status, "True");
}

#[test]
fn a_bundle_that_does_not_fit_leaves_the_last_one_delivered() {
    let good = after(&object(1), &success("v1", signed()), 100);
    let object = after(&good, &too_large(), 200);
    assert_eq!(condition(&object, DELIVERED).unwrap().status, "True");
    assert_eq!(condition(&object, READY).unwrap().reason, "TooLarge");
    assert_eq!(object.status.unwrap().bundle, good.status.unwrap().bundle);
}

/// Nothing is claimed about what could not be looked at.
#[rstest]
#[case(LastGoodState::InPlace, "True")]
#[case(LastGoodState::Missing, "False")]
#[case(LastGoodState::Unknown, "Unknown")]
fn what_became_of_the_last_good_bundle_is_told_by_delivered_alone(
    #[case] last_good: LastGoodState,
    #[case] delivered: &str,
) {
    let good = after(&object(1), &success("v1", signed()), 100);
    let mut outcome = unavailable();
    if let Outcome::Failure(failure) = &mut outcome {
        failure.last_good = last_good;
    }
    let object = after(&good, &outcome, 200);
    let ready = condition(&object, READY).unwrap();
    assert_eq!(ready.message, "registry 'ghcr.io' answered 503 for 'acme/authz:1.0.0'");
    assert_eq!(condition(&object, DELIVERED).unwrap().status, delivered);
}

#[test]
fn the_same_outcome_again_changes_nothing() {
    let mut unchanged = success("v1", signed());
    let good = after(&object(1), &unchanged, 100);
    if let Outcome::Success(success) = &mut unchanged {
        success.bundle = None;
    }
    assert_eq!(shown(&after(&good, &unchanged, 200)), shown(&good));
    let bad = after(&good, &unavailable(), 300);
    assert_eq!(shown(&after(&bad, &unavailable(), 400)), shown(&bad));
}

#[test]
fn a_suspended_object_claims_nothing_about_the_new_spec() {
    let good = after(&object(1), &success("v1", signed()), 100);
    let changed = PolicyImage {
        status: good.status.clone(),
        ..object(2)
    };
    let object = after(&changed, &Outcome::Suspended, 200);
    let ready = condition(&object, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("Unknown", "Suspended"));
    assert_eq!(condition(&object, VERIFIED).unwrap().observed_generation, Some(1));
}

#[test]
fn a_run_answers_the_annotation_that_asked_for_it() {
    let mut asked = object(1);
    let annotations = [("reconcile.fluxcd.io/requestedAt".to_owned(), "now".to_owned())];
    asked.metadata.annotations = Some(annotations.into());
    let answered = after(&asked, &unavailable(), 100).status.unwrap();
    assert_eq!(answered.last_handled_reconcile_at.as_deref(), Some("now"));
    assert_eq!(
        after(&asked, &Outcome::Suspended, 100)
            .status
            .unwrap()
            .last_handled_reconcile_at,
        None
    );
}

proptest! {
    /// What kstatus, and with it `kubectl wait`, Flux and Argo CD, rely on, after any sequence of outcomes.
    #[test]
    fn every_status_is_one_that_kstatus_understands(steps in proptest::collection::vec((0..7usize, 0..2i64), 1..12)) {
        let mut generation = 1;
        let mut current = object(generation);
        for (second, (kind, bump)) in (1..).zip(steps) {
            generation += bump;
            current.metadata.generation = Some(generation);
            let outcome = match kind {
                0 => success("v1", signed()),
                1 => success("v2", Verification::NotConfigured),
                2 => unavailable(),
                3 => foreign(),
                4 => too_large(),
                5 => failure(ValidateError::RequireVerification),
                _ => Outcome::Suspended,
            };
            current = after(&current, &outcome, second);
            let is = |type_: &str| condition(&current, type_).map(|condition| condition.status.as_str());
            prop_assert_eq!(current.status.as_ref().unwrap().observed_generation, Some(generation));
            prop_assert!(is(READY).is_some());
            prop_assert!(!(is(STALLED).is_some() && is(RECONCILING).is_some()));
            for negative in [STALLED, RECONCILING] {
                prop_assert!(is(negative).is_none_or(|status| status == "True"));
            }
            if is(READY) == Some("True") {
                prop_assert_eq!(condition(&current, READY).unwrap().observed_generation, Some(generation));
                prop_assert!(is(STALLED).is_none() && is(RECONCILING).is_none());
                prop_assert_eq!(is(DELIVERED), Some("True"));
            } else if is(READY) == Some("False") {
                prop_assert!(is(STALLED).is_some() || is(RECONCILING).is_some());
            }
        }
    }
}
