//! What every run shares.

use std::sync::Arc;

use super::state::StateCache;
use crate::operator::metrics::Metrics;
use crate::operator::objects::ClusterObjects;
use crate::operator::status::StatusWriter;
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
