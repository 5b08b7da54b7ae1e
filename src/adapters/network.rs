//! How adapters reach the network: one guard, one TLS set-up, one rule for redirects and retries.
//!
//! Registries use it today; Git servers, trust roots and bundle servers will. Nothing here knows a protocol above HTTP,
//! or one of the adapters above it. Its error is [`NetworkError`]; each adapter turns it into its own.

pub(crate) mod circuit_breaker;
pub mod egress;
pub mod error;
pub(crate) mod redirect;
pub(crate) mod resolver;
pub(crate) mod retry;
pub(crate) mod transport;

pub use egress::EgressPolicy;
pub use error::NetworkError;
pub use transport::{Timeouts, check_system_certificates};
