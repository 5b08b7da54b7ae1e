//! Brings every delivery of a plan up to the verified revision.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::outcome::{StepError, VerifiedPlan};
use crate::domain::digest::Digest;
use crate::operator::api::status::PolicyImageStatus;
use crate::operator::delivery::config_map::{ApplyError, ConfigMapState, LastGood, Observed};
use crate::operator::delivery::{ConfigMapDelivery, Delivery};
use crate::operator::slot::YieldingPipeline;
use crate::operator::write_gate::WriteGate;
use crate::pipeline::acquire::{Acquired, BundleSummary};
use crate::pipeline::ports::Ports;

/// How often a ConfigMap is observed in one run while another client changes it between our read and our write.
const CONFLICT_ATTEMPTS: u32 = 3;

/// Delivers the verified bundle of `plan` wherever it is not yet. Returns what there is to report about the bundle;
/// nothing where `status` says it already.
///
/// The verified manifest says which bundle it must be. Status has no say in this: whoever may edit it could name a
/// bundle of their own, and put it into the ConfigMap.
///
/// # Errors
/// The error of the step that failed.
pub async fn deliver<P: Ports>(
    gate: &WriteGate,
    pipeline: &mut YieldingPipeline<'_, P>,
    plan: &VerifiedPlan,
    status: Option<&PolicyImageStatus>,
    state: &mut ConfigMapState,
    watched: Option<&ObjectMeta>,
) -> Result<Option<BundleSummary>, StepError> {
    let manifest = pipeline.open(&plan.plan.source, &plan.verified).await?;
    let wanted = manifest.value().bundle.digest;
    let mut summary = None;
    for delivery in &plan.plan.deliveries {
        let Delivery::ConfigMap(target) = delivery;
        let previous = previous_config_maps(target, status, state);
        if let Some(acquired) = deliver_to(target, &wanted, gate, pipeline, plan, state, watched).await? {
            summary = Some(acquired.summary());
        }
        for previous in previous {
            previous.prune(gate).await?;
        }
    }
    state.delivered = Some(*plan.revision.digest());
    if summary.is_none() && reported(status) != Some(wanted) {
        summary = Some(
            pipeline
                .acquire(&plan.plan.source, &plan.verified, plan.plan.largest_bundle())
                .await?
                .summary(),
        );
    }
    Ok(summary)
}

/// Returns the bundle where it had to be written.
async fn deliver_to<P: Ports>(
    target: &ConfigMapDelivery,
    wanted: &Digest,
    gate: &WriteGate,
    pipeline: &mut YieldingPipeline<'_, P>,
    plan: &VerifiedPlan,
    state: &mut ConfigMapState,
    mut watched: Option<&ObjectMeta>,
) -> Result<Option<Acquired>, StepError> {
    let mut attempts = CONFLICT_ATTEMPTS;
    loop {
        let observed = target.observe(gate, state, watched).await?;
        if let Observed::Ours(live) = &observed
            && live.holds(target, &plan.revision, wanted)
        {
            state.record(target, live.clone());
            return Ok(None);
        }
        let acquired = pipeline
            .acquire(&plan.plan.source, &plan.verified, plan.plan.largest_bundle())
            .await?;
        match target.apply(gate, &plan.revision, &acquired.bundle, &observed).await {
            Ok(live) => {
                state.record(target, live);
                state.last_good = Some(LastGood {
                    target: target.clone(),
                    revision: plan.revision.clone(),
                    bundle: acquired.bundle.clone(),
                    refused: false,
                });
                return Ok(Some(acquired));
            }
            // What the watch showed is out of date; read the ConfigMap.
            Err(error) if should_retry(&error, &mut attempts) => watched = None,
            Err(error) => return Err(error.into()),
        }
    }
}

fn should_retry(error: &ApplyError, attempts: &mut u32) -> bool {
    *attempts = attempts.saturating_sub(1);
    error.is_conflict() && *attempts > 0
}

/// The bundle that status says is delivered.
pub(super) fn reported(status: Option<&PolicyImageStatus>) -> Option<Digest> {
    status?.bundle.as_ref()?.digest.parse().ok()
}

/// Other ConfigMaps where the bundle may still be: by status, and where this process put it last, if status could not
/// be written since.
fn previous_config_maps(
    target: &ConfigMapDelivery,
    status: Option<&PolicyImageStatus>,
    state: &ConfigMapState,
) -> Vec<ConfigMapDelivery> {
    let recorded = status
        .and_then(|status| status.delivery.as_ref())
        .and_then(|delivery| ConfigMapDelivery::recorded(target.owner.clone(), delivery));
    let applied = state.applied.as_ref().map(|applied| ConfigMapDelivery {
        name: applied.name.clone(),
        ..target.clone()
    });
    let mut previous: Vec<_> = recorded.into_iter().chain(applied).collect();
    previous.retain(|previous| previous.name != target.name);
    previous.dedup_by(|one, other| one.name == other.name);
    previous
}

#[cfg(test)]
mod tests;
