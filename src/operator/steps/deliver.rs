//! Brings every delivery of a plan up to the verified revision.

use std::sync::Arc;

use super::context::RunContext;
use super::outcome::{StepError, VerifiedPlan};
use crate::domain::digest::Digest;
use crate::operator::api::status::PolicyImageStatus;
use crate::operator::delivery::prune_previous;
use crate::pipeline::acquire::{AcquireError, Acquired, BundleSummary};
use crate::pipeline::ports::Ports;

/// Delivers the verified bundle wherever it is not yet, and removes it where the spec does not want it any more. Returns
/// what there is to report about the bundle; nothing where status says it already.
///
/// The verified manifest says which bundle it must be. Status has no say in this: whoever may edit it could name a
/// bundle of their own, and put it into the ConfigMap.
///
/// # Errors
/// The error of the step that failed.
pub(super) async fn deliver<P: Ports>(
    verified: &VerifiedPlan<'_>,
    run: &mut RunContext<'_, P>,
) -> Result<Option<BundleSummary>, StepError> {
    let VerifiedPlan { plan, revision, .. } = verified;
    let manifest = run
        .wait_for(|pipeline| pipeline.open(&plan.source, &verified.verified, verified.freshness))
        .await?;
    let wanted = manifest.value().bundle.digest;
    let status = run.object.status.as_ref();
    let recorded = status.and_then(|status| status.delivery.as_ref());
    let mut summary = None;
    for delivery in &plan.deliveries {
        let outdated = delivery
            .observe(run.cluster, run.config_maps, recorded, revision, &wanted)
            .await?;
        if let Some(outdated) = outdated {
            let acquired = acquire(verified, run).await?;
            outdated
                .apply(run.cluster, run.config_maps, revision, &acquired.bundle)
                .await?;
            summary = Some(acquired.summary());
        }
    }
    prune_previous(run.cluster, run.key, &plan.deliveries, recorded, run.config_maps).await?;
    if summary.is_none() && reported(status) != Some(wanted) {
        let acquired = acquire(verified, run).await?;
        summary = Some(acquired.summary());
    }
    Ok(summary)
}

/// The verified bundle of a plan.
///
/// # Errors
/// [`AcquireError`].
pub(super) async fn acquire<P: Ports>(
    verified: &VerifiedPlan<'_>,
    run: &mut RunContext<'_, P>,
) -> Result<Acquired, Arc<AcquireError>> {
    let VerifiedPlan {
        plan,
        verified,
        freshness,
        ..
    } = verified;
    run.wait_for(|pipeline| pipeline.acquire(&plan.source, verified, plan.largest_bundle(), *freshness))
        .await
}

/// The bundle that status says is delivered.
pub(super) fn reported(status: Option<&PolicyImageStatus>) -> Option<Digest> {
    status?.bundle.as_ref()?.digest.parse().ok()
}

#[cfg(test)]
mod tests;
