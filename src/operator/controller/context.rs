//! What every run shares.

use std::sync::Arc;

use super::state::{ObjectState, StateCache};
use crate::operator::api::spec::PolicyImage;
use crate::operator::identity::ObjectKey;
use crate::operator::metrics::{Metrics, Run};
use crate::operator::objects::ClusterObjects;
use crate::operator::status::{StatusWrite, StatusWriter};
use crate::operator::steps::outcome::Outcome;
use crate::operator::steps::validate::OperatorOptions;
use crate::operator::write_gate::WriteGate;
use crate::pipeline::Pipeline;

/// What every run shares.
pub(crate) struct Context<P> {
    /// The one way to write.
    pub gate: WriteGate,
    /// Objects that specs name.
    pub objects: ClusterObjects,
    /// Resolve, verify, acquire.
    pub pipeline: Pipeline<P>,
    /// The options that apply to all objects.
    pub options: OperatorOptions,
    /// The state of each object between runs.
    pub states: StateCache,
    /// Reports how runs ended.
    pub status: StatusWriter,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The slots for runs at work, over all watched namespaces.
    pub concurrency: usize,
}

impl<P> Context<P> {
    /// Reports how a run ended, in the log, the metrics and the status; not a conflict that is tried again first.
    pub(super) async fn report(
        &self,
        object: &PolicyImage,
        key: &ObjectKey,
        state: &ObjectState,
        outcome: &Outcome,
        run: Run,
    ) -> StatusWrite {
        if state.tolerates(outcome) {
            run.repeated();
            return StatusWrite::Withheld;
        }
        outcome.log(key);
        let written = self.status.write(object, outcome).await;
        run.ended(outcome.reason(), outcome.disposition());
        written
    }
}
