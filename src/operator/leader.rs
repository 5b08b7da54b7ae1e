//! Leader election on a `coordination.k8s.io/v1` Lease, with the semantics of client-go, so that the two can share one.
//!
//! # Guarantees
//! - A candidate takes another candidate's Lease only after it has seen it unchanged for the whole duration written in
//!   it, by its own monotonic clock. Times written by others are never compared with the local clock, so no skew or
//!   step of a clock steals a Lease.
//! - Every write names the `resourceVersion` (or is a create), so of any number of candidates one wins.
//! - The leader considers its leadership lost one renew deadline after it *sent* its last successful renewal. The
//!   renew deadline is shorter than the Lease, so it stops before another can start, also when the API server hangs.
//!
//! # Assumptions
//! Monotonic clocks of all candidates run at about the same speed, and go on while the process is stopped (they do
//! after `SIGSTOP`; a virtual machine that is suspended and resumed sees no time pass).
//!
//! # Caveats
//! A process that is stopped between [`LeaderHandle::holds`] and the write it guards writes late. Writes that must not
//! be repeated out of order need their own precondition.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

pub use self::leadership::{LeaderHandle, Leadership, Loss};
use self::lease::{Decision, View, held_by, released};
pub use self::timing::{Timing, TimingError};
use super::kube_error::describe;
use crate::pipeline::reason::chain;

mod leadership;
mod lease;
#[cfg(test)]
mod tests;
mod timing;

/// Why one request for the Lease failed. Retried, until the renew deadline if there is one.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server did not answer in time.
    #[error("the API server did not answer within {} s", .0.as_secs_f32())]
    Timeout(std::time::Duration),
    /// Another candidate was faster, or the Lease was deleted between reading and writing.
    #[error("the Lease changed while it was being written")]
    Conflict,
    /// The API server refused: the usual cause is missing rights.
    #[error("the API server refused: {0}")]
    Refused(String),
    /// No connection, or a response that cannot be read.
    #[error("the API server cannot be used: {0}")]
    Unusable(String),
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => Self::Conflict,
            kube::Error::Api(_) => Self::Refused(describe(&error)),
            _ => Self::Unusable(describe(&error)),
        }
    }
}

/// An identity that no other process has, nor this one after a restart: the pod's name and a random suffix.
///
/// Without the suffix, a restarted container would take the Lease of its predecessor for its own.
#[must_use]
pub fn identity(pod: &str) -> String {
    format!("{pod}_{:016x}", fastrand::u64(..))
}

/// A candidate for leadership.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

impl LeaderElection {
    /// A candidate for the Lease `name` in `namespace`. `identity` must be unique: see [`identity`].
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: String, timing: Timing) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            timing,
        }
    }

    /// Waits until this candidate leads, however long that takes. API errors are logged and retried.
    pub async fn acquire(&self) -> Leadership {
        let mut view = View::default();
        let mut waits_for = None;
        loop {
            match self.attempt(&mut view).await {
                Ok(Attempt::Held { sent }) => return Leadership::start(self.clone(), view, sent),
                Ok(Attempt::HeldBy(holder)) => {
                    if waits_for.as_ref() != Some(&holder) {
                        tracing::info!(lease = self.name, holder, "another replica leads; waiting");
                        waits_for = Some(holder);
                    }
                }
                Err(error) => self.warn(&error),
            }
            sleep(self.timing.jittered_retry()).await;
        }
    }

    /// One read of the Lease and, if `View` decides so, one write.
    async fn attempt(&self, view: &mut View) -> Result<Attempt, RequestError> {
        // A leader knows what it wrote last and does not read it again. After any failure it reads.
        let lease = match view.take_own() {
            Some(own) => Some(own),
            None => self.with_timeout(self.api.get_opt(&self.name)).await?,
        };
        let sent = Instant::now();
        let parameters = PostParams::default();
        let written = match view.decide(&self.identity, lease, sent) {
            Decision::Wait { holder } => return Ok(Attempt::HeldBy(holder)),
            Decision::Create => {
                let lease = held_by(&self.identity, Lease::default(), self.timing.lease, Timestamp::now());
                let lease = lease::named(lease, &self.name);
                self.with_timeout(self.api.create(&parameters, &lease)).await?
            }
            Decision::Hold { lease } => {
                let lease = held_by(&self.identity, *lease, self.timing.lease, Timestamp::now());
                self.with_timeout(self.api.replace(&self.name, &parameters, &lease))
                    .await?
            }
        };
        view.keep_own(written);
        Ok(Attempt::Held { sent })
    }

    async fn with_timeout<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
        let limit = self.timing.request_timeout();
        timeout(limit, request)
            .await
            .map_err(|_| RequestError::Timeout(limit))?
            .map_err(RequestError::from)
    }

    /// Gives the Lease up, if it is ours.
    async fn vacate(&self) -> Result<(), RequestError> {
        let Some(lease) = self.with_timeout(self.api.get_opt(&self.name)).await? else {
            return Ok(());
        };
        if lease::holder(&lease) != Some(self.identity.as_str()) {
            return Ok(());
        }
        let lease = released(lease, Timestamp::now());
        self.with_timeout(self.api.replace(&self.name, &PostParams::default(), &lease))
            .await?;
        Ok(())
    }

    fn warn(&self, error: &RequestError) {
        let error = chain(error);
        tracing::warn!(lease = self.name, error, "leader election failed; retrying");
    }
}

/// The result of one attempt.
enum Attempt {
    /// We hold the Lease; `sent` is when the successful write was sent, so the server has it since then or later.
    Held { sent: Instant },
    /// Another candidate does.
    HeldBy(String),
}
