//! Brings every delivery of a plan up to the verified revision.

use super::RunContext;
use super::outcome::{StepError, VerifiedPlan};
use crate::domain::digest::Digest;
use crate::operator::api::status::PolicyImageStatus;
use crate::operator::delivery::{expect_previous, prune_previous};
use crate::pipeline::acquire::BundleSummary;
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
    let VerifiedPlan {
        plan,
        revision,
        verified,
        ..
    } = verified;
    let manifest = run.pipeline.open(&plan.source, verified).await?;
    let wanted = manifest.value().bundle.digest;
    let status = run.object.status.as_ref();
    let recorded = status.and_then(|status| status.delivery.as_ref());
    expect_previous(run.key, recorded, run.config_maps);
    let mut summary = None;
    for delivery in &plan.deliveries {
        let outdated = delivery
            .observe(run.cluster, run.config_maps, revision, &wanted)
            .await?;
        if let Some(outdated) = outdated {
            let acquired = run
                .pipeline
                .acquire(&plan.source, verified, plan.largest_bundle())
                .await?;
            outdated
                .apply(run.cluster, run.config_maps, revision, &acquired.bundle)
                .await?;
            summary = Some(acquired.summary());
        }
    }
    prune_previous(run.cluster, run.key, &plan.deliveries, recorded, run.config_maps).await?;
    if summary.is_none() && reported(status) != Some(wanted) {
        let acquired = run
            .pipeline
            .acquire(&plan.source, verified, plan.largest_bundle())
            .await?;
        summary = Some(acquired.summary());
    }
    Ok(summary)
}

/// The bundle that status says is delivered.
pub(super) fn reported(status: Option<&PolicyImageStatus>) -> Option<Digest> {
    status?.bundle.as_ref()?.digest.parse().ok()
}

#[cfg(test)]
mod tests;
