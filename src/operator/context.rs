//! What every run shares.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::core::PartialObjectMeta;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::Semaphore;

use super::leader::Tenure;
use super::metrics::Metrics;
use super::objects::ClusterObjects;
use super::reconcile::memory::Memory;
use super::reconcile::validate::Rules;
use crate::pipeline::Pipeline;

/// What every run shares.
pub struct Context<R> {
    /// The API server.
    pub client: Client,
    /// Objects that specs name.
    pub objects: ClusterObjects,
    /// Resolve, verify, acquire.
    pub pipeline: Pipeline<R>,
    /// What holds for all objects.
    pub rules: Rules,
    /// What is remembered of each object.
    pub memory: Memory,
    /// Who events are from.
    pub reporter: Reporter,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds the runs at one time over all watched namespaces.
    pub slots: Semaphore,
    /// The right to write, where replicas compete for it.
    pub tenure: Option<Tenure>,
}

impl<R> Context<R> {
    /// Whether this process may write now.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.tenure.as_ref().is_none_or(Tenure::holds)
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
