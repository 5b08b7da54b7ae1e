//! How a run ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deliver::DeliverError;
use super::dereference::DereferenceError;
use super::observe::ObserveError;
use super::validate::{Plan, ValidateError};
use crate::domain::revision::Revision;
use crate::domain::source::{Selection, Source};
use crate::domain::trust::{TrustError, Verification, Verified};
use crate::operator::hints;
use crate::pipeline::acquire::{AcquireError, BundleSummary};
use crate::pipeline::reason::{Classify, Disposition, Reason, chain};
use crate::pipeline::resolve::ResolveError;
use crate::pipeline::verify::VerifyError;

/// What steps 1 to 4 found out.
#[derive(Debug)]
pub struct VerifiedPlan {
    /// What the run sets out to do.
    pub plan: Plan,
    /// What the source resolved to.
    pub revision: Revision,
    /// The same, with the proof.
    pub verified: Verified<Revision>,
    /// When the registry was asked; others may have asked before this run began.
    pub asked: Instant,
}

/// The end of one run.
#[derive(Debug)]
pub enum Outcome {
    /// `spec.suspend` is set; nothing was done.
    Suspended,
    /// The target holds what the spec asks for, proved as it asks.
    Success(Box<Success>),
    /// It does not, or could not be found out.
    Failure(Failure),
}

/// What a good run has to report.
#[derive(Debug)]
pub struct Success {
    /// What the source resolved to.
    pub revision: Revision,
    /// The tag that a version range chose.
    pub semver_tag: Option<String>,
    /// Why it may be delivered.
    pub verification: Verification,
    /// The ConfigMap and its key.
    pub target: (String, String),
    /// The new bundle and its image's annotations; none where what is delivered has not changed.
    pub bundle: Option<BundleSummary>,
}

impl Success {
    /// The report of a run that proved `proved`, and delivered `bundle` unless it was there already.
    #[must_use]
    pub fn new(verified_plan: &VerifiedPlan, bundle: Option<BundleSummary>) -> Self {
        let VerifiedPlan {
            plan,
            revision,
            verified,
            ..
        } = verified_plan;
        let (Source::Image(source), Revision::Image(image)) = (&plan.source, revision);
        let by_range = matches!(source.selection(), Selection::Range(_));
        Self {
            revision: revision.clone(),
            semver_tag: image.tag.as_ref().filter(|_| by_range).map(ToString::to_string),
            verification: verified.verification().clone(),
            target: (plan.target.name.clone(), plan.target.key.clone()),
            bundle,
        }
    }
}

/// What a bad run has to report.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Box<StepError>,
    /// The verification, where the run got as far as one.
    pub verification: Option<Verification>,
    /// Whether the ConfigMap does not hold the last good bundle any more.
    pub lost: bool,
}

impl Failure {
    /// A failure after the proof was found.
    #[must_use]
    pub fn after(verification: &Verification, error: StepError) -> Self {
        Self {
            error: Box::new(error),
            verification: Some(verification.clone()),
            lost: false,
        }
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self {
            error: Box::new(error),
            verification: None,
            lost: false,
        }
    }
}

/// An error of one of the steps.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Step 1.
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    /// Step 2.
    #[error(transparent)]
    Validate(#[from] ValidateError),
    /// Step 3.
    #[error(transparent)]
    Resolve(#[from] Arc<ResolveError>),
    /// Step 4.
    #[error(transparent)]
    Verify(#[from] Arc<VerifyError>),
    /// Step 5.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Step 7, the download.
    #[error(transparent)]
    Acquire(#[from] Arc<AcquireError>),
    /// Step 7, the write.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// The deadline passed.
    #[error("the run did not end within {} s", .0.as_secs())]
    DeadlineExceeded(Duration),
    /// Another replica may lead by now, so nothing more is written.
    #[error("this replica does not lead any more")]
    LeadershipLost,
    /// A fault of this program.
    #[error("the operator failed in a way that it should not have")]
    Panic,
}

impl StepError {
    /// What is so and, where there is something, what to do about it, on one line: `fact; hint`.
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
            Self::DeadlineExceeded(_) => Some("if the registry is slow, raise 'spec.timeout'".to_owned()),
            Self::Panic => Some("please report it with the operator's log".to_owned()),
            // These are the operator's own, and name their fields themselves.
            Self::Dereference(_) | Self::Validate(_) | Self::Observe(_) | Self::Deliver(_) | Self::LeadershipLost => {
                None
            }
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
            Self::LeadershipLost | Self::Panic => Reason::Internal,
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
            Self::DeadlineExceeded(_) | Self::LeadershipLost | Self::Panic => Disposition::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ports::RegistryError;
    use insta::assert_snapshot;

    fn shown(error: RegistryError) -> String {
        StepError::from(Arc::new(ResolveError::AskRegistry(error))).explain()
    }

    #[test]
    fn a_message_is_the_fact_and_then_what_to_do() {
        let error = RegistryError::NotFound {
            host: "registry.example".to_owned(),
            what: "acme/policy:1.0".to_owned(),
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
            what: "acme/policy:1.0".to_owned(),
            status: 503,
        };
        assert_snapshot!(shown(error), @"registry 'registry.example' answered 503 for 'acme/policy:1.0'");
    }
}
