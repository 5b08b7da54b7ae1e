//! Starts the real programs that the tests, the demo and the benchmark run against.
//!
//! - [`tools`] finds the programs that `make tools` built, [`process`] runs them so that none outlives this process.
//! - [`registry`] is a container registry, in two kinds; [`image`] makes and pushes policy images; [`cosign`] signs them.
//! - [`faulty_proxy`] stands between two programs and breaks what they say to each other.
//! - [`api_proxy`] stands before an API server and answers as a test says.
//! - [`clock`] gives a program a wall clock that can be stepped, [`names`] a host name whose address can change.
//! - [`scripted`] is a server that answers as a test says: a registry under an attacker's control.
//! - [`opa`] runs Open Policy Agent on what was delivered.
//! - [`cluster`] is a Kubernetes control plane; [`operator`] runs the operator's binary against it.
//!
//! Everything listens on loopback only, and every wait has an end. Nothing here is downloaded or built while a test
//! runs: a missing program is an error that names the make target that brings it.
#![expect(clippy::disallowed_methods, reason = "test equipment reads and writes its own files")]

pub mod api_proxy;
pub mod clock;
pub mod cluster;
pub mod cosign;
pub mod faulty_proxy;
pub mod image;
pub mod names;
pub mod object;
pub mod opa;
pub mod operator;
pub mod ports;
pub mod process;
pub mod registry;
pub mod run_directory;
pub mod scripted;
pub mod tls;
pub mod tools;
pub mod wait;

/// Installs the TLS provider of this process; further calls do nothing.
///
/// With none installed rustls refuses to choose, and panics at the first connection.
pub fn init() {
    // An error says that a provider is installed already, which is all we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
