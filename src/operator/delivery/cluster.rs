//! What deliveries need of a cluster.

use kube::runtime::reflector::{ObjectRef, Store};

use crate::operator::identity::ObjectVersion;
use crate::operator::received::ConfigMapMetadata;
use crate::operator::write_gate::WriteGate;

/// The watched ConfigMaps of one controller: metadata only, and only those that carry our label.
pub(crate) type ConfigMaps = Store<ConfigMapMetadata>;

/// The cluster as a delivery uses it.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    /// The one way to write.
    pub gate: &'a WriteGate,
    /// What the watch of ConfigMaps shows.
    pub config_maps: &'a ConfigMaps,
}

impl Cluster<'_> {
    /// Whether the watch shows a ConfigMap in this very version.
    #[must_use]
    pub fn shows(&self, namespace: &str, name: &str, version: &ObjectVersion) -> bool {
        let shown = self.config_maps.get(&ObjectRef::new(name).within(namespace));
        shown.is_some_and(|config_map| version.is_of(&config_map.metadata))
    }
}
