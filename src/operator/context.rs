//! What every run shares.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::core::PartialObjectMeta;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{ObjectRef, Store};

use super::leader::LeaderHandle;
use super::metrics::Metrics;
use super::objects::ClusterObjects;
use super::reconcile::memory::StateCache;
use super::reconcile::validate::OperatorOptions;
use crate::pipeline::Pipeline;

/// What every run shares.
pub struct Context<P> {
    /// The API server.
    pub client: Client,
    /// Objects that specs name.
    pub objects: ClusterObjects,
    /// Resolve, verify, acquire.
    pub pipeline: Pipeline<P>,
    /// What holds for all objects.
    pub rules: OperatorOptions,
    /// What is remembered of each object.
    pub memory: StateCache,
    /// Who events are from.
    pub reporter: Reporter,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Runs at work at one time, over all watched namespaces.
    pub concurrency: usize,
    /// The right to write, where replicas compete for it.
    pub tenure: Option<LeaderHandle>,
}

impl<P> Context<P> {
    /// Whether this process may write now.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.tenure.as_ref().is_none_or(LeaderHandle::holds)
    }
}

/// The watched ConfigMaps of one controller: metadata only, and only those that carry our label.
pub type ConfigMaps = Store<PartialObjectMeta<ConfigMap>>;

/// The metadata of a watched ConfigMap.
#[must_use]
pub fn watched(config_maps: &ConfigMaps, namespace: &str, name: &str) -> Option<ObjectMeta> {
    config_maps
        .get(&ObjectRef::new(name).within(namespace))
        .map(|object| object.metadata.clone())
}
