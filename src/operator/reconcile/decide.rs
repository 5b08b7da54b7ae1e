//! Step 4b: whether anything has to be done.

use std::collections::BTreeMap;

use super::observe::Observed;
use super::validate::{Plan, Target};
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::domain::trust::Verified;
use crate::operator::api::condition::READY;
use crate::operator::api::status::PolicyImageStatus;
use crate::operator::api::{BUNDLE_DIGEST_ANNOTATION, FIELD_MANAGER, MANAGED_BY_LABEL, SOURCE_ANNOTATION};

/// What is left to do after the revision is known and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The target holds what the plan asks for, and status says so.
    Nothing,
    /// Acquire the bundle and apply the ConfigMap.
    Deliver,
}

/// Compares what is asked for with what is there. Nothing is left only if the generation, the revision, the proof and the
/// delivered object are unchanged and the last run was good.
#[must_use]
pub fn decide(
    plan: &Plan,
    verified: &Verified<Revision>,
    generation: Option<i64>,
    status: Option<&PolicyImageStatus>,
    observed: &Observed,
) -> Work {
    let unchanged = || {
        let (status, Observed::Ours(existing)) = (status?, observed) else {
            return None;
        };
        let (source, bundle) = (status.source.as_ref()?, status.bundle.as_ref()?);
        let config_map = &status.delivery.as_ref()?.config_map;
        let ready = status.conditions.iter().find(|condition| condition.type_ == READY)?;
        let content = existing.content?;
        let verified_plan = status
            .verification
            .as_ref()
            .map(|verification| verification.trust_digest.clone());
        let revision = verified.value();
        Some(
            ready.status == "True"
                && status.observed_generation == generation
                && source.digest == revision.digest().to_string()
                && verified_plan == verified.verification().trust_digest().map(Digest::to_string)
                && bundle.digest == content.to_string()
                && (&config_map.name, &config_map.key) == (&plan.target.name, &plan.target.key)
                && holds(&existing.labels, &labels(&plan.target))
                && holds(&existing.annotations, &annotations(&plan.target, revision, &content)),
        )
    };
    if unchanged() == Some(true) {
        Work::Nothing
    } else {
        Work::Deliver
    }
}

fn holds(actual: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| actual.get(key) == Some(value))
}

/// The labels of the ConfigMap: the user's and the one that our watch selects by.
#[must_use]
pub fn labels(target: &Target) -> BTreeMap<String, String> {
    let mut labels = target.labels.clone();
    labels.insert(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned());
    labels
}

/// The annotations of the ConfigMap: the user's, the digest of the bundle and the pinned image it comes from.
#[must_use]
pub fn annotations(target: &Target, revision: &Revision, bundle: &Digest) -> BTreeMap<String, String> {
    let mut annotations = target.annotations.clone();
    annotations.insert(BUNDLE_DIGEST_ANNOTATION.to_owned(), bundle.to_string());
    annotations.insert(SOURCE_ANNOTATION.to_owned(), revision.to_string());
    annotations
}

#[cfg(test)]
mod tests;
