//! What every run shares.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};

use super::state::StateCache;
use crate::operator::metrics::Metrics;
use crate::operator::objects::ClusterObjects;
use crate::operator::received::ConfigMapMetadata;
use crate::operator::reconcile::validate::OperatorOptions;
use crate::operator::status::StatusWriter;
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

/// The watched ConfigMaps of one controller: metadata only, and only those that carry our label.
pub(crate) type ConfigMaps = Store<ConfigMapMetadata>;

/// The metadata of a watched ConfigMap.
#[must_use]
pub(crate) fn watched(config_maps: &ConfigMaps, namespace: &str, name: &str) -> Option<ObjectMeta> {
    config_maps
        .get(&ObjectRef::new(name).within(namespace))
        .map(|object| object.metadata.clone())
}
