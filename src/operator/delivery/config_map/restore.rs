//! Keeps the last good bundle where it is while runs fail.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::error::{ApplyError, ObserveError};
use super::live::{LiveConfigMap, Observed};
use super::state::{ConfigMapState, LastGood};
use super::target::ConfigMapDelivery;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::operator::write_gate::WriteGate;

/// The state of the last good bundle.
#[derive(Debug)]
pub enum Restored {
    /// It is in place, or that cannot be determined now: the next run checks again.
    Unneeded,
    /// It was restored.
    Done,
    /// It is gone, and this is why it could not be restored; none where it is not known or not admitted any more.
    Missing(Option<ApplyError>),
}

impl ConfigMapDelivery {
    /// Makes sure that the ConfigMap still holds what was delivered last: by the state, or by `reported`, the digest in
    /// status, where this process has delivered nothing yet. Nothing that `refused` is restored.
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
        let serves = |live: &LiveConfigMap| {
            let wanted = last.as_ref().map(LastGood::digest).or(reported);
            wanted.is_some() && live.content == wanted
        };
        // Labels included, where they are known: without its label the ConfigMap would be out of sight of the watch.
        let holds = |live: &LiveConfigMap| match &last {
            Some(last) => live.holds(&last.target, &last.revision, &last.digest()),
            None => serves(live),
        };
        if let Observed::Ours(live) = &observed
            && holds(live)
        {
            state.record(self, live.clone());
            return Restored::Unneeded;
        }
        let Some(last) = last.as_ref().filter(|last| !refused(&last.revision)) else {
            let serves = matches!(&observed, Observed::Ours(live) if serves(live));
            return if serves {
                Restored::Unneeded
            } else {
                Restored::Missing(None)
            };
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
