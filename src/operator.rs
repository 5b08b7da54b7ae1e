//! Kubernetes: the API, the controller and everything it needs to run.

pub mod api;
pub mod args;
pub mod connect;
pub mod controller;
pub mod delivery;
pub mod hints;
pub mod identity;
pub mod kube_error;
pub mod leader;
pub mod metrics;
pub mod objects;
pub mod program;
pub mod reconcile;
pub mod render;
pub mod run;
pub mod status;
pub mod write_gate;

pub use program::main;
