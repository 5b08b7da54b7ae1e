//! The one way to write to the API server.

use kube::Client;

use super::leader::LeaderHandle;
use crate::pipeline::reason::{Classify, Disposition, Reason};

/// Another replica may be the leader by now, so nothing more is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this replica is no longer the leader, so nothing more is written")]
pub struct LeadershipLost;

impl Classify for LeadershipLost {
    fn reason(&self) -> Reason {
        Reason::Internal
    }

    fn disposition(&self) -> Disposition {
        Disposition::Retry
    }
}

/// Hands out the client only while this replica leads. The steps have no other client that writes.
///
/// **Invariant:** call it again before each write. A run may have waited for a registry for longer than the Lease
/// lasts.
#[derive(Clone)]
pub struct WriteGate {
    client: Client,
    leader: Option<LeaderHandle>,
}

impl WriteGate {
    /// A gate before `client`, open while `leader` leads; always, if replicas do not compete.
    #[must_use]
    pub fn new(client: Client, leader: Option<LeaderHandle>) -> Self {
        Self { client, leader }
    }

    /// The client, for the one request that follows.
    ///
    /// # Errors
    /// [`LeadershipLost`].
    pub fn client(&self) -> Result<&Client, LeadershipLost> {
        if self.leader.as_ref().is_none_or(LeaderHandle::holds) {
            Ok(&self.client)
        } else {
            Err(LeadershipLost)
        }
    }
}
