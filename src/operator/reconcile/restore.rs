//! After a failure: the last good bundle stays where it was, or status says that it does not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::deliver::reported;
use super::outcome::StepError;
use crate::operator::api::spec::PolicyImage;
use crate::operator::delivery::ConfigMapDelivery;
use crate::operator::delivery::config_map::{ConfigMapState, Restored};
use crate::operator::identity::ObjectKey;
use crate::operator::write_gate::WriteGate;

/// Makes sure that what was delivered last is still there. True where it is not, and cannot be put back: it is not
/// remembered (the operator was restarted since, or the policy that admitted it was replaced), or it is the very one that
/// `error` says is not trusted any more.
///
/// A good run does the same on its way; this is for runs that failed before they looked.
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

/// Puts back what another client changed, before a registry is asked for anything: that may take long, and what it will
/// say is no reason to leave OPA with something else meanwhile. Nothing is put back that the last verification refused.
/// Where this fails, the run says so.
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

/// Where status says that the last good bundle is; none where nothing was delivered yet.
fn recorded_target(object: &PolicyImage) -> Option<ConfigMapDelivery> {
    let status = object.status.as_ref()?;
    status.bundle.as_ref()?;
    ConfigMapDelivery::recorded(ObjectKey::of(&object.metadata).ok()?, status.delivery.as_ref()?)
}
