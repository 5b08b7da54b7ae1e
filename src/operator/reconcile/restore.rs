//! After a failure: the last good bundle stays in place, or status says that it does not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::deliver::reported;
use super::dereference::ObjectReader;
use super::outcome::{StepError, VerifiedPlan};
use super::validate::{OperatorOptions, Plan};
use super::{plan, resolve_and_verify};
use crate::domain::digest::Digest;
use crate::domain::source::Source;
use crate::operator::api::spec::PolicyImage;
use crate::operator::delivery::ConfigMapDelivery;
use crate::operator::delivery::config_map::{ConfigMapState, LastGood, Restored};
use crate::operator::identity::ObjectKey;
use crate::operator::slot::{Slot, YieldingPipeline};
use crate::operator::write_gate::WriteGate;
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;
use crate::pipeline::single_flight::Freshness;

/// The last good bundle of an object that this process has delivered nothing for: after a restart, or where another
/// policy admitted the bundle in its state.
///
/// The digest is that of `delivered`, where a run of this process found everything in place, or else the one in status,
/// which is believed in nothing else: the digest is looked for in the repository of the spec, and verified by the policy
/// of the spec as it is now. Nothing where that fails; a key that is absent admits nothing.
pub async fn recover<P: Ports, O: ObjectReader>(
    object: &PolicyImage,
    delivered: Option<Digest>,
    objects: &O,
    options: OperatorOptions,
    pipeline: &Pipeline<P>,
    slot: &mut Slot,
) -> Option<LastGood> {
    let target = recorded_target(object)?;
    let digest = delivered.or_else(|| recorded_digest(object))?;
    let plan = plan(object, objects, options).await.ok()?;
    let Source::Image(image) = &plan.source;
    let source = Source::Image(image.pinned(digest));
    let verified = resolve_and_verify(Plan { source, ..plan }, pipeline, Freshness::recent());
    let VerifiedPlan {
        plan,
        revision,
        verified,
        ..
    } = slot.release_during(Box::pin(verified)).await.ok()?;
    let bundle = YieldingPipeline::new(pipeline, slot)
        .acquire(&plan.source, &verified, plan.largest_bundle())
        .await
        .ok()?
        .bundle;
    Some(LastGood {
        target,
        revision,
        bundle,
        refused: false,
    })
}

/// Makes sure that what was delivered last is still there. True where it is not, and cannot be restored: it is not
/// known (see [`recover`]), or it is the very one that `error` says is not trusted any more.
///
/// A successful run does the same on its way; this is for runs that failed before the delivery.
pub async fn last_good_missing(
    gate: &WriteGate,
    object: &PolicyImage,
    error: &StepError,
    state: &mut ConfigMapState,
    watched: Option<&ObjectMeta>,
) -> bool {
    let Some(target) = recorded_target(object) else {
        return false;
    };
    let reported = reported(object.status.as_ref());
    let refused = |revision: &_| error.refuses(revision);
    match target.restore(gate, state, watched, reported, refused).await {
        Restored::Unneeded => false,
        Restored::Done => {
            tracing::info!(config_map = target.name, "restored the last good bundle");
            false
        }
        Restored::Missing(None) => true,
        Restored::Missing(Some(error)) => {
            tracing::warn!(config_map = target.name, %error, "the last good bundle was not restored");
            true
        }
    }
}

/// Restores what another client changed, before any request to a registry: that may take long, and its result is no
/// reason to leave OPA with something else meanwhile. Nothing is restored that the last verification refused. Where
/// this fails, the run reports it.
pub async fn restore_changed(
    gate: &WriteGate,
    object: &PolicyImage,
    state: &mut ConfigMapState,
    watched: Option<&ObjectMeta>,
) {
    let is_trusted = state.last_good.as_ref().is_some_and(|last| !last.refused);
    if let Some(target) = recorded_target(object).filter(|_| is_trusted)
        && let Restored::Done = target.restore(gate, state, watched, None, |_| false).await
    {
        tracing::info!(config_map = target.name, "restored what another client changed");
    }
}

/// Which revision status says was delivered last.
fn recorded_digest(object: &PolicyImage) -> Option<Digest> {
    object.status.as_ref()?.source.as_ref()?.digest.parse().ok()
}

/// Where status says that the last good bundle is; none where nothing was delivered yet.
fn recorded_target(object: &PolicyImage) -> Option<ConfigMapDelivery> {
    let status = object.status.as_ref()?;
    status.bundle.as_ref()?;
    ConfigMapDelivery::recorded(ObjectKey::of(&object.metadata).ok()?, status.delivery.as_ref()?)
}
