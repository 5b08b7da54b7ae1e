//! Delivery to a ConfigMap: `observe` what is there, `apply` what was verified, `restore` what somebody removed.

mod apply;
mod error;
mod live;
mod manifest;
mod observe;
mod restore;
mod state;
mod target;

pub use error::{ApplyError, ObserveError};
pub use live::{LiveConfigMap, Observed};
pub use manifest::MAX_CONFIG_MAP_BYTES;
pub use restore::Restored;
pub use state::{AppliedConfigMap, ConfigMapState, LastGood};
pub use target::ConfigMapDelivery;
