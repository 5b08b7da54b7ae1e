//! Keeps the last good bundle where it is while runs fail.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::error::{ApplyError, ObserveError};
use super::live::Observed;
use super::state::{ConfigMapState, LastGood};
use super::target::ConfigMapDelivery;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::operator::write_gate::WriteGate;

/// What became of the last good bundle.
#[derive(Debug)]
pub enum Restored {
    /// It was where it should be, or nobody can tell now: the next run looks again.
    Unneeded,
    /// It was put back.
    Done,
    /// It is gone, and this is why it could not be put back; none where it is not remembered or not admitted any more.
    Missing(Option<ApplyError>),
}

impl ConfigMapDelivery {
    /// Makes sure that the ConfigMap still holds what was delivered last: by memory, or by `reported`, the digest in
    /// status, where this process has delivered nothing yet. Nothing that `refused` is put back.
    pub async fn restore(
        &self,
        gate: &WriteGate,
        state: &mut ConfigMapState,
        watched: Option<&ObjectMeta>,
        reported: Option<Digest>,
        refused: impl Fn(&Revision) -> bool,
    ) -> Restored {
        let observed = match self.observe(gate, state, watched).await {
            Ok(observed) => observed,
            Err(ObserveError::Foreign { .. } | ObserveError::Namesake { .. }) => return Restored::Missing(None),
            Err(ObserveError::Read(_) | ObserveError::Identify { .. } | ObserveError::LeadershipLost(_)) => {
                return Restored::Unneeded;
            }
        };
        let last = state.last_good.clone().filter(|last| last.target.is_same_place(self));
        let wanted = last.as_ref().map(LastGood::digest).or(reported);
        if let Observed::Ours(live) = &observed
            && live.content == wanted
        {
            state.record(self, live.clone());
            return Restored::Unneeded;
        }
        let Some(last) = last.filter(|last| !refused(&last.revision)) else {
            return Restored::Missing(None);
        };
        match last.target.apply(gate, &last.revision, &last.bundle, &observed).await {
            Ok(live) => {
                state.record(&last.target, live);
                Restored::Done
            }
            Err(error) => Restored::Missing(Some(error)),
        }
    }
}
