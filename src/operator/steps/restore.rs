//! After a failure: the last good bundle stays in place, or status says that it does not.

use std::time::Duration;

use super::context::RunContext;
use super::deliver::{acquire, reported};
use super::outcome::{LastGoodState, StepError};
use super::resolve_and_verify;
use super::validate::Plan;
use crate::domain::digest::Digest;
use crate::domain::source::Source;
use crate::operator::api::spec::PolicyImage;
use crate::operator::delivery::config_map::{LastGood, Restoration};
use crate::operator::delivery::{ConfigMapDelivery, Delivery};
use crate::pipeline::ports::Ports;
use crate::pipeline::single_flight::Freshness;
use tokio::time::timeout;

/// How long recovering, and then restoring, the last good bundle may take.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes sure that what was delivered last is still there, after a run that failed with `error`: it may not have reached
/// the delivery. `plan` is that of the run, where it had one.
pub async fn restore_last_good<P: Ports>(
    plan: Option<&Plan>,
    error: &StepError,
    run: &mut RunContext<'_, P>,
) -> LastGoodState {
    if error.is_conflict() {
        // What is there is newer than what this run saw, and may be newer than what status says was delivered last. The
        // run is repeated and observes it again; to restore now could take back what was published.
        return LastGoodState::Unknown;
    }
    if !run.is_current() {
        return LastGoodState::Unknown;
    }
    let Some(recorded) = run.recorded_target() else {
        return LastGoodState::InPlace;
    };
    // Status may be that of an earlier spec, whose ConfigMap was removed since.
    let is_newer =
        |wanted: &&ConfigMapDelivery| wanted.name != recorded.name && run.config_maps.delivered(wanted).is_some();
    let wanted = plan.iter().flat_map(|plan| &plan.deliveries);
    let newer = wanted.map(|Delivery::ConfigMap(wanted)| wanted).find(is_newer);
    let target = newer.unwrap_or(&recorded);
    // One whose file was evicted cannot be restored.
    let is_available = |last: &LastGood| last.bundle.value().is_available();
    if let Some(plan) = plan
        && !run.config_maps.last_good(target).is_some_and(is_available)
    {
        let recovered = timeout(RESTORE_TIMEOUT, recover(target, plan, run)).await;
        run.slot.resume().await;
        if let Ok(Some(last_good)) = recovered {
            run.config_maps.record_last_good(last_good);
        }
    }
    let reported = reported(run.object.status.as_ref());
    let refused = |revision: &_| error.refuses(revision);
    let restored = target.restore(run.cluster, run.config_maps, reported, refused);
    let config_map = &target.name;
    match timeout(RESTORE_TIMEOUT, restored).await {
        Ok(Restoration::InPlace) => LastGoodState::InPlace,
        Ok(Restoration::Restored) => {
            tracing::info!(config_map, "restored the last good bundle");
            LastGoodState::InPlace
        }
        Ok(Restoration::Missing(error)) => {
            if let Some(error) = error {
                tracing::warn!(config_map, %error, "the last good bundle was not restored");
            }
            LastGoodState::Missing
        }
        Ok(Restoration::Undetermined) | Err(_) => LastGoodState::Unknown,
    }
}

/// The last good bundle of an object that this process has delivered nothing for: after a restart, or where another
/// policy admitted the bundle in its state.
///
/// The digest is that of the revision that a run of this process found in place, or else the one in status, which is
/// believed in nothing else: the digest is looked for in the repository of the spec, and verified by the policy of the
/// spec as it is now. Nothing where that fails.
async fn recover<P: Ports>(target: &ConfigMapDelivery, plan: &Plan, run: &mut RunContext<'_, P>) -> Option<LastGood> {
    let digest = run
        .config_maps
        .delivered(target)
        .or_else(|| recorded_digest(run.object))?;
    let Source::Image(image) = &plan.source;
    let pinned = Plan {
        source: Source::Image(image.pinned(digest)),
        ..plan.clone()
    };
    let verified = run
        .wait_for(|pipeline| resolve_and_verify(&pinned, pipeline, Freshness::recent()))
        .await
        .ok()?;
    let acquired = acquire(&verified, run).await.ok()?;
    Some(LastGood {
        target: target.clone(),
        revision: verified.revision,
        bundle: acquired.bundle,
        refused: false,
    })
}

/// Which revision status says was delivered last.
fn recorded_digest(object: &PolicyImage) -> Option<Digest> {
    object.status.as_ref()?.source.as_ref()?.digest.parse().ok()
}
