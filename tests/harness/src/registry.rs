//! Container registries on loopback.
//!
//! [`Distribution`] is the real CNCF distribution 3 in a process of its own, without the referrers API. [`InProcess`] has
//! the referrers API and counts requests.

mod distribution;
mod endpoint;
mod in_process;

pub use distribution::{Distribution, DistributionOptions};
pub(crate) use endpoint::digest;
pub use endpoint::{Credentials, Endpoint};
pub use in_process::{Counts, InProcess, InProcessOptions};
