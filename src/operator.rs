//! Kubernetes: the API, the controller and everything it needs to run.

pub mod api;
pub mod args;
mod connect;
mod controller;
mod delivery;
mod hints;
mod identity;
mod kube_error;
pub mod leader;
pub mod metrics;
mod objects;
mod program;
mod received;
pub mod render;
mod run;
mod slot;
mod status;
pub mod steps;
mod write_gate;

pub use program::main;
