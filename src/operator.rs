//! What makes the pipeline a Kubernetes controller.
//!
//! **Architecture invariant:** nothing outside this layer and its program knows it. Here are the only places that wait
//! for signals, listen on ports, elect a leader and name metrics.

pub mod health;
pub mod leader;
pub mod listen;
pub mod metrics;
pub mod telemetry;
