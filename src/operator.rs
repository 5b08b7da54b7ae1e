//! Kubernetes: the API, the controller and everything it needs to run.

pub mod api;
pub mod args;
pub mod connect;
pub mod context;
pub mod controller;
pub mod hints;
pub mod kube_error;
pub mod leader;
pub mod metrics;
pub mod objects;
pub mod program;
pub mod reconcile;
pub mod render;
pub mod report;
pub mod run;
pub mod turn;

pub use program::main;
