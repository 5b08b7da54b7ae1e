//! policy-operator.

pub mod domain;
#[cfg(feature = "operator")]
pub mod operator;
pub mod pipeline;
