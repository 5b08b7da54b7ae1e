//! Name resolution that leaves out addresses the client must not reach.
//!
//! The system's resolver blocks a thread until it has a result, whoever still waits for it, and which name servers it asks
//! is up to whoever chose the name. A zone whose servers never reply holds a thread for many seconds per lookup, and all
//! files, signatures and lookups of the process need threads of the same pool. So there are few lookups at one time, and
//! no tenant has more than a share of them.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::egress::EgressPolicy;
use super::error::{RefusedAddress, TooManyLookups};
use crate::domain::access::Tenant;
use crate::pipeline::fair_semaphore::FairSemaphore;

/// Lookups at one time, of the 512 threads that the runtime has for blocking work, and the most of one tenant.
const LOOKUPS: (usize, usize) = (128, 16);

/// How long a lookup waits for its turn: less than a connection may take, so that a wait of our own is never taken for the
/// silence of a host.
const PATIENCE: Duration = Duration::from_secs(4);

/// One limit for the process, as there is one pool of threads.
static LIMIT: LazyLock<FairSemaphore> = LazyLock::new(|| FairSemaphore::with_share(LOOKUPS.0, LOOKUPS.1));

tokio::task_local! {
    /// On whose behalf a request is sent. The HTTP client has no other way to tell its resolver.
    pub(crate) static REQUESTER: Tenant;
}

/// The system's resolver behind a [`EgressPolicy`].
#[derive(Debug, Clone)]
pub(crate) struct GuardedResolver {
    policy: Arc<EgressPolicy>,
}

impl GuardedResolver {
    pub(crate) fn new(policy: Arc<EgressPolicy>) -> Self {
        Self { policy }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        let tenant = REQUESTER.try_with(Tenant::clone).unwrap_or_default();
        Box::pin(async move {
            let permit = tokio::time::timeout(PATIENCE, LIMIT.acquire(&tenant))
                .await
                .map_err(|_| TooManyLookups)?;
            let lookup = tokio::task::spawn_blocking(move || {
                // Until the thread is free again, not until its caller gives up.
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs().map(Vec::from_iter)
            });
            let found = lookup.await??.into_iter();
            let permitted: Vec<SocketAddr> = found.filter(|found| policy.permits(found.ip())).collect();
            if permitted.is_empty() {
                return Err(RefusedAddress.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}
