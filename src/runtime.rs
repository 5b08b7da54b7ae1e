//! What every program of this crate needs: logs, listening, health, process metrics, signals, arguments, and the set-up
//! of adapters.
//!
//! **Architecture invariant:** nothing here knows Kubernetes, or one of the programs.

pub mod args;
pub mod health;
pub mod listen;
pub mod process_metrics;
pub mod setup;
pub mod signals;
pub mod telemetry;
