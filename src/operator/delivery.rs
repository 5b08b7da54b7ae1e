//! Where verified bundles go: one module for each kind of target.

pub mod config_map;

pub use config_map::ConfigMapDelivery;

/// One place that a plan delivers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A ConfigMap in the object's namespace.
    ConfigMap(ConfigMapDelivery),
}
