//! Delivery to a ConfigMap: `observe` what is there, `apply` what was verified, `restore` what another client removed,
//! `prune` what an earlier spec asked for.

mod apply;
mod error;
mod live;
mod manifest;
mod observe;
mod prune;
mod restore;
mod state;
mod target;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use error::{ApplyError, ObserveError};
pub(crate) use live::Observed;
pub(crate) use manifest::MAX_CONFIG_MAP_BYTES;
pub(crate) use prune::previous;
pub(crate) use restore::Restoration;
pub(crate) use state::{ConfigMapStates, LastGood};
pub(crate) use target::ConfigMapDelivery;
