//! Kubernetes: the API, the controller and everything it needs to run.

pub mod api;
pub mod context;
pub mod controller;
pub mod kube_error;
pub mod objects;
pub mod reconcile;
pub mod report;
