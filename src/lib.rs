//! policy-operator.

pub mod domain;
pub mod pipeline;
