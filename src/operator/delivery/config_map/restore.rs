//! After a failure: the last good bundle stays where it was, or status says that it does not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;

use super::deliver;
use super::memory::{AppliedConfigMap, ObjectState};
use super::observe::{self, Observed};
use super::outcome::{StepError, VerifiedPlan};
use super::validate::{self, Target};
use crate::domain::bundle::Bundle;
use crate::domain::revision::Revision;
use crate::domain::trust::Verified;
use crate::operator::api::spec::PolicyImage;
use crate::operator::api::status::PolicyImageStatus;
use crate::pipeline::acquire::Acquired;

/// What was delivered last, with all that it takes to deliver it again.
#[derive(Debug, Clone)]
pub struct LastGood {
    /// Where it went.
    pub target: Target,
    /// Where it came from.
    pub revision: Revision,
    /// The bundle and its proof.
    pub bundle: Verified<Bundle>,
}

impl LastGood {
    /// What a run has just delivered.
    #[must_use]
    pub fn of(verified_plan: &VerifiedPlan, acquired: &Acquired) -> Self {
        Self {
            target: verified_plan.plan.target.clone(),
            revision: verified_plan.revision.clone(),
            bundle: acquired.bundle.clone(),
        }
    }
}

/// Makes sure that the ConfigMap still holds what status says was delivered. False where it does not, and cannot be made
/// to: the bundle is not remembered (the operator was restarted since, or the policy that admitted it was replaced), went
/// elsewhere, or is the very one that is not trusted any more.
///
/// A good run does the same on its way; this is for runs that failed before they looked.
pub async fn hold(
    client: &Client,
    object: &PolicyImage,
    error: &StepError,
    state: &mut ObjectState,
    watched: Option<&ObjectMeta>,
) -> bool {
    let Some((status, target)) = object
        .status
        .as_ref()
        .and_then(|status| Some((status, held(object, status)?)))
    else {
        return true;
    };
    let observed = match observe::observe(client, &target, state.delivered.as_ref(), watched).await {
        Ok(observed) => observed,
        // It is somebody else's by now, or nobody can tell: the next run looks again.
        Err(observe::ObserveError::Read(_)) => return true,
        Err(_) => return false,
    };
    let wanted = status.bundle.as_ref().map(|bundle| bundle.digest.clone());
    if let Observed::Ours(existing) = &observed
        && existing.content.map(|content| content.to_string()) == wanted
    {
        state.delivered = Some(AppliedConfigMap::at(&target, existing.clone()));
        return true;
    }
    let Some(last) = state
        .last_good
        .clone()
        .filter(|last| !error.refuses(&last.revision) && last.target.name == target.name)
    else {
        return false;
    };
    match deliver::deliver(client, &last.target, &last.revision, &last.bundle, &observed, &[]).await {
        Ok(existing) => {
            tracing::info!(name = last.target.name, "restored the last good bundle");
            state.delivered = Some(AppliedConfigMap::at(&last.target, existing));
            true
        }
        Err(error) => {
            tracing::warn!(name = last.target.name, %error, "the last good bundle was not restored");
            false
        }
    }
}

/// Where the last good bundle is, which may be elsewhere than the spec wants the next one.
fn held(object: &PolicyImage, status: &PolicyImageStatus) -> Option<Target> {
    status.bundle.as_ref()?;
    let delivery = &status.delivery.as_ref()?.config_map;
    let (name, key) = (delivery.name.clone(), delivery.key.clone());
    Some(Target {
        name,
        key,
        ..validate::target(object).ok()?
    })
}
