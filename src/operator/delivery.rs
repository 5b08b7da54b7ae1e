//! Delivery of verified bundles: one module for each kind of target.

pub(super) mod config_map;

pub(super) use config_map::ConfigMapDelivery;

/// One place that a plan delivers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A ConfigMap in the object's namespace.
    ConfigMap(ConfigMapDelivery),
}

impl Delivery {
    /// The most bytes of a bundle that it could take; what its metadata leaves may be less.
    #[must_use]
    pub fn largest_bundle(&self) -> u64 {
        match self {
            Self::ConfigMap(_) => config_map::MAX_CONFIG_MAP_BYTES,
        }
    }
}
