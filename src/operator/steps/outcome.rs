//! How a run ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dereference::DereferenceError;
use super::validate::{Plan, ValidateError};
use crate::domain::revision::Revision;
use crate::domain::source::{Selection, Source};
use crate::domain::trust::{TrustError, Verification, Verified};
use crate::operator::delivery::Delivery;
use crate::operator::delivery::config_map::{ApplyError, ObserveError};
use crate::operator::hints;
use crate::operator::identity::ObjectKey;
use crate::operator::write_gate::LeadershipLost;
use crate::pipeline::acquire::{AcquireError, BundleSummary};
use crate::pipeline::reason::{Classify, Disposition, Reason, chain};
use crate::pipeline::resolve::ResolveError;
use crate::pipeline::single_flight::Freshness;
use crate::pipeline::verify::VerifyError;

/// A plan, and the verified revision that it is about.
#[derive(Debug)]
pub struct VerifiedPlan<'a> {
    /// What the run sets out to do.
    pub plan: &'a Plan,
    /// What the source resolved to.
    pub revision: Revision,
    /// The same, with its verification.
    pub verified: Verified<Revision>,
    /// How fresh failures of the registry must be.
    pub freshness: Freshness,
    /// When the resolution of the source started: before this run, if it was shared.
    pub resolved_at: Instant,
}

/// The end of one run.
#[derive(Debug)]
pub enum Outcome {
    /// `spec.suspend` is set; nothing was done.
    Suspended,
    /// Every delivery holds the verified bundle.
    Success(Box<Success>),
    /// At least one does not, or its state is unknown.
    Failure(Failure),
}

impl Outcome {
    /// The reason of the Ready condition that the run ends with.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Suspended => Reason::Suspended,
            Self::Success(_) => Reason::Succeeded,
            Self::Failure(failure) => failure.error.reason(),
        }
    }

    /// What happens after a failure; none after a success.
    #[must_use]
    pub fn disposition(&self) -> Option<Disposition> {
        match self {
            Self::Suspended | Self::Success(_) => None,
            Self::Failure(failure) => Some(failure.error.disposition()),
        }
    }

    /// As of when the source led to the result; none where it is not known.
    #[must_use]
    pub fn resolved_at(&self) -> Option<Instant> {
        match self {
            Self::Suspended => None,
            Self::Success(success) => Some(success.resolved_at),
            Self::Failure(failure) => failure.resolved_at,
        }
    }

    /// Whether another client changed an object between our read and our write, so that a new run helps.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Failure(failure) if failure.error.is_conflict())
    }

    /// Logs how the run of the object `key` ended.
    pub fn log(&self, key: &ObjectKey) {
        let (namespace, name) = (key.namespace(), key.name());
        match self {
            Self::Suspended => tracing::debug!(namespace, name, "suspended"),
            Self::Success(success) => {
                let digest = success.revision.digest();
                if success.bundle.is_some() {
                    tracing::info!(namespace, name, %digest, "delivered");
                } else {
                    tracing::debug!(namespace, name, %digest, "unchanged");
                }
            }
            Self::Failure(failure) => {
                let (reason, error) = (failure.error.reason().as_str(), failure.error.explain());
                tracing::warn!(namespace, name, reason, error, "reconciliation failed");
            }
        }
    }
}

/// What a successful run reports.
#[derive(Debug)]
pub struct Success {
    /// What the source resolved to.
    pub revision: Revision,
    /// As of when.
    pub resolved_at: Instant,
    /// The tag that a version range chose.
    pub semver_tag: Option<String>,
    /// The verification that admitted it.
    pub verification: Verification,
    /// Where the bundle is.
    pub deliveries: Vec<Delivery>,
    /// The bundle and its image's annotations; none where status describes them already.
    pub bundle: Option<BundleSummary>,
}

impl Success {
    /// The report of a run that carried out a plan. `bundle` is what there is to report about the bundle.
    #[must_use]
    pub fn new(verified_plan: &VerifiedPlan<'_>, bundle: Option<BundleSummary>) -> Self {
        let VerifiedPlan {
            plan,
            revision,
            verified,
            resolved_at,
            ..
        } = verified_plan;
        let (Source::Image(source), Revision::Image(image)) = (&plan.source, revision);
        let by_range = matches!(source.selection(), Selection::Range(_));
        Self {
            revision: revision.clone(),
            resolved_at: *resolved_at,
            semver_tag: image.tag.as_ref().filter(|_| by_range).map(ToString::to_string),
            verification: verified.verification().clone(),
            deliveries: plan.deliveries.clone(),
            bundle,
        }
    }
}

/// What a failed run reports.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Box<StepError>,
    /// The verification, where the run got as far as one.
    pub verification: Option<Verification>,
    /// As of when the source led to what failed, where the run got as far.
    pub resolved_at: Option<Instant>,
    /// What became of the last good bundle.
    pub last_good: LastGoodState,
}

/// What became of the last good bundle when a run failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastGoodState {
    /// It is in place, or none was delivered yet.
    InPlace,
    /// The ConfigMap does not hold it any more, and it could not be restored.
    Missing,
    /// That could not be determined.
    Unknown,
}

impl Failure {
    /// A failure after the revision was verified.
    #[must_use]
    pub fn after(verified: &VerifiedPlan<'_>, error: StepError) -> Self {
        Self {
            verification: Some(verified.verified.verification().clone()),
            resolved_at: Some(verified.resolved_at),
            ..Self::from(error)
        }
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self {
            error: Box::new(error),
            verification: None,
            resolved_at: None,
            last_good: LastGoodState::InPlace,
        }
    }
}

/// An error of one of the steps.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// What the spec names cannot be used.
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    /// The spec cannot be carried out.
    #[error(transparent)]
    Validate(#[from] ValidateError),
    /// The source does not resolve.
    #[error(transparent)]
    Resolve(#[from] Arc<ResolveError>),
    /// The revision is not verified.
    #[error(transparent)]
    Verify(#[from] Arc<VerifyError>),
    /// The target cannot be used.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The manifest or the bundle cannot be acquired.
    #[error(transparent)]
    Acquire(#[from] Arc<AcquireError>),
    /// The target was not written.
    #[error(transparent)]
    Deliver(#[from] ApplyError),
    /// The deadline passed.
    #[error("the run did not end within {} s", .0.as_secs())]
    DeadlineExceeded(Duration),
    /// Another replica may lead by now.
    #[error(transparent)]
    LeadershipLost(#[from] LeadershipLost),
    /// A bug in this program.
    #[error("the run panicked, which is a bug in the operator")]
    Panic,
}

impl StepError {
    /// The error and, where there is one, the hint what to do about it, on one line: `fact; hint`.
    #[must_use]
    pub fn explain(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{}; {hint}", chain(self)),
            None => chain(self),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Resolve(error) => hints::of_resolve(error),
            Self::Verify(error) => hints::of_verify(error),
            Self::Acquire(error) => hints::of_acquire(error),
            Self::Validate(error) => error.hint().map(str::to_owned),
            Self::DeadlineExceeded(_) => Some(
                "if the registry is slow, raise 'spec.timeout', or '--max-timeout' where that is shorter".to_owned(),
            ),
            Self::Panic => Some("please report it with the operator's log".to_owned()),
            // These are the operator's own, and name their fields themselves.
            Self::Dereference(_) | Self::Observe(_) | Self::Deliver(_) | Self::LeadershipLost(_) => None,
        }
    }

    /// Whether it may go away by itself, so that it says nothing about the object. What a panic says is not known.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.disposition() == Disposition::Retry && !matches!(self, Self::Panic)
    }

    /// Whether another client changed an object between our read and our write.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Observe(error) => error.is_conflict(),
            Self::Deliver(error) => error.is_conflict(),
            _ => false,
        }
    }

    /// Whether it says that this very revision is not trusted.
    #[must_use]
    pub fn refuses(&self, revision: &Revision) -> bool {
        let Self::Verify(error) = self else { return false };
        let VerifyError::Untrusted(TrustError::Unsigned { subject, .. } | TrustError::Mismatch { subject, .. }) =
            error.as_ref()
        else {
            return false;
        };
        let Revision::Image(image) = revision;
        (&subject.repository, &subject.digest) == (&image.repository, &image.digest)
    }
}

impl Classify for StepError {
    fn reason(&self) -> Reason {
        match self {
            Self::Dereference(error) => error.reason(),
            Self::Validate(error) => error.reason(),
            Self::Resolve(error) => error.reason(),
            Self::Verify(error) => error.reason(),
            Self::Observe(error) => error.reason(),
            Self::Acquire(error) => error.reason(),
            Self::Deliver(error) => error.reason(),
            Self::DeadlineExceeded(_) => Reason::DeadlineExceeded,
            Self::LeadershipLost(error) => error.reason(),
            Self::Panic => Reason::Internal,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::Dereference(error) => error.disposition(),
            Self::Validate(error) => error.disposition(),
            Self::Resolve(error) => error.disposition(),
            Self::Verify(error) => error.disposition(),
            Self::Observe(error) => error.disposition(),
            Self::Acquire(error) => error.disposition(),
            Self::Deliver(error) => error.disposition(),
            Self::LeadershipLost(error) => error.disposition(),
            Self::DeadlineExceeded(_) | Self::Panic => Disposition::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ports::RegistryError;
    use insta::assert_snapshot;

    fn shown(error: RegistryError) -> String {
        StepError::from(Arc::new(ResolveError::QueryRegistry(error))).explain()
    }

    #[test]
    fn a_message_is_the_fact_and_then_what_to_do() {
        let error = RegistryError::NotFound {
            host: "registry.example".to_owned(),
            resource: "acme/policy:1.0".to_owned(),
        };
        assert_snapshot!(
            shown(error),
            @"'acme/policy:1.0' does not exist in registry 'registry.example'; check the name, push it, or check that the credentials may see it"
        );
    }

    #[test]
    fn a_fact_that_nobody_here_can_change_stands_alone() {
        let error = RegistryError::Unavailable {
            host: "registry.example".to_owned(),
            resource: "acme/policy:1.0".to_owned(),
            status: 503,
        };
        assert_snapshot!(shown(error), @"registry 'registry.example' answered 503 for 'acme/policy:1.0'");
    }
}
