//! The status of an object after a run. Pure, and the only place that knows conditions.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::domain::trust::Verification;
use crate::operator::api::Request;
use crate::operator::api::condition::{DELIVERED, READY, RECONCILING, STALLED, VERIFIED};
use crate::operator::api::spec::PolicyImage;
use crate::operator::api::status::{
    BundleStatus, ConfigMapStatus, DeliveryStatus, PolicyImageStatus, SourceStatus, VerificationStatus,
};
use crate::operator::delivery::{ConfigMapDelivery, Delivery};
use crate::operator::reconcile::outcome::{Failure, Outcome, StepError, Success};
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
    let requested_at = Request::of(object).requested_at;
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
        Outcome::Suspended => suspended(&mut conditions, &status),
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

fn suspended(conditions: &mut Conditions<'_>, status: &PolicyImageStatus) {
    let message = format!("spec.suspend is true, so nothing is checked{}", serving(status));
    conditions.set(READY, "Unknown", Reason::Suspended, &message);
    conditions.keep(VERIFIED);
    conditions.keep(DELIVERED);
}

fn succeeded(conditions: &mut Conditions<'_>, status: &mut PolicyImageStatus, success: &Success) {
    let revision = &success.revision;
    let Revision::Image(image) = revision;
    let reference = match &image.tag {
        Some(tag) => format!("{}:{tag}", image.repository),
        None => image.repository.to_string(),
    };
    let name = success
        .deliveries
        .iter()
        .map(|Delivery::ConfigMap(target)| format!("ConfigMap '{}'", target.name));
    let places = name.collect::<Vec<_>>().join(" and ");
    if let Some(BundleSummary { facts, annotations }) = &success.bundle {
        status.bundle = Some(BundleStatus {
            digest: facts.digest.to_string(),
            size: i64::try_from(facts.size).unwrap_or(i64::MAX),
            revision: shorten(&facts.revision, 256),
            roots: facts.roots.iter().take(100).map(|root| shorten(root, 256)).collect(),
            rego_version: facts.rego_version.map(i32::from),
            annotations: shown(annotations),
        });
    }
    let ready = format!("delivered {} to {places}", revision.digest().short());
    status.source = Some(SourceStatus {
        reference,
        digest: revision.digest().to_string(),
        short_digest: revision.digest().short(),
        semver_tag: success.semver_tag.clone(),
    });
    for delivery in &success.deliveries {
        let Delivery::ConfigMap(ConfigMapDelivery { name, key, .. }) = delivery;
        status.delivery = Some(DeliveryStatus {
            config_map: ConfigMapStatus {
                name: name.clone(),
                key: key.clone(),
            },
        });
    }
    status.verification = match &success.verification {
        Verification::NotConfigured => None,
        Verification::Signed {
            authorities,
            trust_digest,
        } => Some(VerificationStatus {
            authorities: authorities.clone(),
            trust_digest: trust_digest.to_string(),
        }),
    };
    conditions.set(READY, "True", Reason::Succeeded, &ready);
    conditions.verified(&success.verification);
    conditions.delivered(status);
}

fn failed(conditions: &mut Conditions<'_>, status: &PolicyImageStatus, failure: &Failure) {
    let reason = failure.error.reason();
    let error = failure.error.explain();
    let taken = matches!(reason, Reason::NotOwned | Reason::Immutable);
    // Another client may have changed what the ConfigMap holds.
    let serving = if taken || failure.last_good_missing {
        String::new()
    } else {
        serving(status)
    };
    let message = format!("{}{serving}", shorten(&error, MESSAGE_LIMIT - 200));
    conditions.set(READY, "False", reason, &message);
    match (&*failure.error, &failure.verification) {
        (_, Some(verification)) => conditions.verified(verification),
        (StepError::Verify(_), None) if matches!(reason, Reason::Unsigned | Reason::SignatureMismatch) => {
            conditions.set(VERIFIED, "False", reason, &error);
        }
        (StepError::Verify(_), None) => conditions.set(VERIFIED, "Unknown", reason, &error),
        (_, None) => conditions.keep_or(VERIFIED, reason, "not checked, because the run failed before"),
    }
    match &*failure.error {
        StepError::Observe(_) | StepError::Deliver(_) if taken => conditions.set(DELIVERED, "False", reason, &error),
        _ if failure.last_good_missing => {
            let message = "another client changed or deleted the ConfigMap, and the last good bundle cannot be restored before a run succeeds; see condition Ready";
            conditions.set(DELIVERED, "False", reason, message);
        }
        _ if status.bundle.is_some() => conditions.delivered(status),
        _ => conditions.set(
            DELIVERED,
            "False",
            reason,
            "nothing has been delivered yet; see condition Ready",
        ),
    }
    match failure.error.disposition() {
        Disposition::Stalled => conditions.set(STALLED, "True", reason, &error),
        Disposition::Retry | Disposition::WaitFor(_) => {
            conditions.set(
                RECONCILING,
                "True",
                Reason::ProgressingWithRetry,
                "retrying; see condition Ready",
            );
        }
    }
}

/// What stays delivered, as the end of a sentence.
fn serving(status: &PolicyImageStatus) -> String {
    match (&status.source, &status.bundle) {
        (Some(source), Some(_)) => {
            format!("; the last good policy, {}, stays delivered", source.short_digest)
        }
        _ => String::new(),
    }
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

    fn delivered(&mut self, status: &PolicyImageStatus) {
        let (Some(bundle), Some(delivery)) = (&status.bundle, &status.delivery) else {
            return;
        };
        let ConfigMapStatus { name, key } = &delivery.config_map;
        // The long digest is in `status.bundle`.
        let digest = bundle
            .digest
            .parse()
            .map_or(String::new(), |digest: Digest| format!("{} ", digest.short()));
        let message = format!("bundle {digest}is in key '{key}' of ConfigMap '{name}'");
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
