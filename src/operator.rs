//! Kubernetes: the API, the controller and everything it needs to run.

pub mod api;
pub mod context;
pub mod controller;
pub mod health;
pub mod kube_error;
pub mod leader;
pub mod listen;
pub mod metrics;
pub mod objects;
pub mod reconcile;
pub mod report;
pub mod telemetry;
