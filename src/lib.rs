//! policy-operator.

#[cfg(feature = "adapters")]
pub mod adapters;
pub mod domain;
#[cfg(feature = "operator")]
pub mod operator;
pub mod pipeline;
