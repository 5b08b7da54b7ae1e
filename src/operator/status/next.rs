//! The status of an object after a run. Pure, and the only place that knows conditions.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::domain::trust::Verification;
use crate::operator::api::ReconcileRequest;
use crate::operator::api::condition::{DELIVERED, READY, RECONCILING, STALLED, VERIFIED};
use crate::operator::api::spec::PolicyImage;
use crate::operator::api::status::{
    BundleStatus, ConfigMapStatus, PolicyImageStatus, SourceStatus, VerificationStatus,
};
use crate::operator::delivery::Delivery;
use crate::operator::steps::outcome::{Failure, LastGoodState, Outcome, StepError, Success};
use crate::pipeline::acquire::BundleSummary;
use crate::pipeline::reason::{Classify, Disposition, Reason};

/// Most characters of a condition's message; an event's note holds 1024 bytes.
const MESSAGE_LIMIT: usize = 900;
/// Most annotations of an image that are shown, and most characters of each.
const ANNOTATIONS_LIMIT: (usize, usize) = (32, 256);

/// The status after a run. What the run did not reach stays as it was; times change only where states do.
#[must_use]
pub(crate) fn next(object: &PolicyImage, outcome: &Outcome, now: Timestamp) -> PolicyImageStatus {
    let old = object.status.clone().unwrap_or_default();
    let requested_at = ReconcileRequest::of(object).requested_at;
    let mut status = PolicyImageStatus {
        observed_generation: object.metadata.generation,
        ..old.clone()
    };
    let mut conditions = Conditions {
        old: &old,
        generation: object.metadata.generation,
        now,
        new: Vec::new(),
    };
    match outcome {
        Outcome::Suspended => suspended(&mut conditions),
        Outcome::Success(success) => {
            status.last_handled_reconcile_at = requested_at.or(old.last_handled_reconcile_at.clone());
            succeeded(&mut conditions, &mut status, success);
        }
        Outcome::Failure(failure) => {
            status.last_handled_reconcile_at = requested_at.or(old.last_handled_reconcile_at.clone());
            failed(&mut conditions, &status, failure);
        }
    }
    status.conditions = conditions.new;
    status
}

fn suspended(conditions: &mut Conditions<'_>) {
    let message = "spec.suspend is true, so nothing is checked";
    conditions.set(READY, "Unknown", Reason::Suspended, message);
    conditions.keep(VERIFIED);
    conditions.keep(DELIVERED);
}

fn succeeded(conditions: &mut Conditions<'_>, status: &mut PolicyImageStatus, success: &Success) {
    let places: Vec<String> = success.deliveries.iter().map(Delivery::describe).collect();
    let ready = format!(
        "delivered {} to {}",
        success.revision.digest().short(),
        places.join(" and ")
    );
    status.source = Some(source_status(success));
    if let Some(summary) = &success.bundle {
        status.bundle = Some(bundle_status(summary));
    }
    // The API has one ConfigMap for each object.
    status.delivery = success.deliveries.first().map(Delivery::status);
    status.verification = verification_status(&success.verification);
    conditions.set(READY, "True", Reason::Succeeded, &ready);
    conditions.verified(&success.verification);
    conditions.delivered(status, "is");
}

fn source_status(success: &Success) -> SourceStatus {
    let Revision::Image(image) = &success.revision;
    let reference = match &image.tag {
        Some(tag) => format!("{}:{tag}", image.repository),
        None => image.repository.to_string(),
    };
    SourceStatus {
        reference,
        digest: image.digest.to_string(),
        short_digest: image.digest.short(),
        semver_tag: success.semver_tag.clone(),
    }
}

fn bundle_status(BundleSummary { facts, annotations }: &BundleSummary) -> BundleStatus {
    BundleStatus {
        digest: facts.digest.to_string(),
        size: i64::try_from(facts.size).unwrap_or(i64::MAX),
        revision: shorten(&facts.revision, 256),
        roots: facts.roots.iter().take(100).map(|root| shorten(root, 256)).collect(),
        rego_version: facts.rego_version.map(i32::from),
        annotations: shown(annotations),
    }
}

fn verification_status(verification: &Verification) -> Option<VerificationStatus> {
    match verification {
        Verification::NotConfigured => None,
        Verification::Signed {
            authorities,
            trust_digest,
        } => Some(VerificationStatus {
            authorities: authorities.clone(),
            trust_digest: trust_digest.to_string(),
        }),
    }
}

fn failed(conditions: &mut Conditions<'_>, status: &PolicyImageStatus, failure: &Failure) {
    let (reason, error) = (failure.error.reason(), failure.error.explain());
    conditions.set(READY, "False", reason, &error);
    verified_after_failure(conditions, failure, &error);
    delivered_after_failure(conditions, status, failure, &error);
    match failure.error.disposition() {
        Disposition::Stalled => conditions.set(STALLED, "True", reason, &error),
        Disposition::Retry | Disposition::WaitFor(_) => {
            let message = "retrying; see condition Ready";
            conditions.set(RECONCILING, "True", Reason::ProgressingWithRetry, message);
        }
    }
}

fn verified_after_failure(conditions: &mut Conditions<'_>, failure: &Failure, error: &str) {
    let reason = failure.error.reason();
    match (&*failure.error, &failure.verification) {
        (_, Some(verification)) => conditions.verified(verification),
        (StepError::Verify(_), None) if matches!(reason, Reason::Unsigned | Reason::SignatureMismatch) => {
            conditions.set(VERIFIED, "False", reason, error);
        }
        (StepError::Verify(_), None) => conditions.set(VERIFIED, "Unknown", reason, error),
        (_, None) => conditions.keep_or(VERIFIED, reason, "not checked, because the run failed before"),
    }
}

fn delivered_after_failure(
    conditions: &mut Conditions<'_>,
    status: &PolicyImageStatus,
    failure: &Failure,
    error: &str,
) {
    let reason = failure.error.reason();
    let is_taken = matches!(&*failure.error, StepError::Observe(_) | StepError::Deliver(_))
        && matches!(reason, Reason::NotOwned | Reason::Immutable);
    let (state, message) = match failure.last_good {
        _ if is_taken => ("False", error),
        LastGoodState::Missing => (
            "False",
            "another client changed or deleted the ConfigMap, and the last good bundle cannot be restored before a run succeeds; see condition Ready",
        ),
        LastGoodState::Unknown => (
            "Unknown",
            "whether the last good bundle is in the ConfigMap is unknown until a run succeeds; see condition Ready",
        ),
        LastGoodState::InPlace if status.bundle.is_some() => return conditions.delivered(status, "stays"),
        LastGoodState::InPlace => ("False", "nothing has been delivered yet; see condition Ready"),
    };
    conditions.set(DELIVERED, state, reason, message);
}

fn shown(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let (count, length) = ANNOTATIONS_LIMIT;
    annotations
        .iter()
        .take(count)
        .map(|(key, value)| (shorten(key, length), shorten(value, length)))
        .collect()
}

fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

struct Conditions<'a> {
    old: &'a PolicyImageStatus,
    generation: Option<i64>,
    now: Timestamp,
    new: Vec<Condition>,
}

impl Conditions<'_> {
    fn set(&mut self, type_: &str, status: &str, reason: Reason, message: &str) {
        let since = self
            .previous(type_)
            .filter(|old| old.status == status)
            .map(|old| old.last_transition_time.clone());
        self.new.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message: shorten(message, MESSAGE_LIMIT),
            last_transition_time: since.unwrap_or(Time(self.now)),
            observed_generation: self.generation,
        });
    }

    fn verified(&mut self, verification: &Verification) {
        match verification {
            Verification::NotConfigured => {
                let message = "spec.verify is not set, so anyone who can push to the repository decides what runs";
                self.set(VERIFIED, "False", Reason::NotConfigured, message);
            }
            Verification::Signed { authorities, .. } => {
                let names = authorities
                    .iter()
                    .map(|name| format!("'{name}'"))
                    .collect::<Vec<_>>()
                    .join(", ");
                self.set(VERIFIED, "True", Reason::Succeeded, &format!("signed by {names}"));
            }
        }
    }

    /// Says where the bundle is; `verb` tells whether it has just been found there, or is the last good one.
    fn delivered(&mut self, status: &PolicyImageStatus, verb: &str) {
        let (Some(bundle), Some(delivery)) = (&status.bundle, &status.delivery) else {
            return;
        };
        let ConfigMapStatus { name, key } = &delivery.config_map;
        // The long digest is in `status.bundle`.
        let digest = bundle
            .digest
            .parse()
            .map_or(String::new(), |digest: Digest| format!("{} ", digest.short()));
        let message = format!("bundle {digest}{verb} in key '{key}' of ConfigMap '{name}'");
        self.set(DELIVERED, "True", Reason::Succeeded, &message);
    }

    /// Keeps the condition of an earlier run, with the generation that it describes.
    fn keep(&mut self, type_: &str) {
        self.new.extend(self.previous(type_).cloned());
    }

    fn keep_or(&mut self, type_: &str, reason: Reason, message: &str) {
        match self.previous(type_) {
            Some(_) => self.keep(type_),
            None => self.set(type_, "Unknown", reason, message),
        }
    }

    fn previous(&self, type_: &str) -> Option<&Condition> {
        self.old.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

#[cfg(test)]
mod tests;
