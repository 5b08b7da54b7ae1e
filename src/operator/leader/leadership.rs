//! Leadership: renewing, losing, releasing.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::lease::View;
use super::{Attempt, LeaderElection, RequestError};
use crate::pipeline::reason::chain;

/// Why leadership ended. The process must stop all work and exit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Another candidate holds the Lease.
    #[error("the Lease '{name}' is now held by '{holder}'")]
    Taken {
        /// The name of the Lease.
        name: String,
        /// Who holds it.
        holder: String,
    },
    /// The renew deadline passed.
    #[error("the Lease '{name}' could not be renewed within {} s: {cause}", deadline.as_secs_f32())]
    NotRenewed {
        /// The name of the Lease.
        name: String,
        /// The renew deadline.
        deadline: Duration,
        /// The error of the last attempt.
        cause: String,
    },
}

#[derive(Debug, Clone)]
enum State {
    HeldUntil(Instant),
    Lost(Loss),
}

/// Leadership, renewed in the background. Dropping it stops the renewal, and the Lease runs out.
#[derive(Debug)]
#[must_use = "leadership ends when this is dropped"]
pub struct Leadership {
    election: LeaderElection,
    state: watch::Receiver<State>,
    stop: oneshot::Sender<()>,
    renewal: JoinHandle<()>,
}

impl Leadership {
    pub(super) fn start(election: LeaderElection, view: View, sent: Instant) -> Self {
        tracing::info!(
            lease = election.name,
            identity = election.identity,
            "this replica leads"
        );
        let until = sent + election.timing.renew_deadline;
        let (report, state) = watch::channel(State::HeldUntil(until));
        let (stop, stopped) = oneshot::channel();
        let renewal = tokio::spawn(election.clone().renew(view, report, until, stopped));
        Self {
            election,
            state,
            stop,
            renewal,
        }
    }

    /// Waits until leadership is lost, and returns why. The process must then stop all work at once and exit.
    pub async fn lost(&mut self) -> Loss {
        match self
            .state
            .wait_for(|state| matches!(state, State::Lost(_)))
            .await
            .as_deref()
        {
            Ok(State::Lost(loss)) => loss.clone(),
            // The renewal can only end without a loss by a panic.
            Ok(State::HeldUntil(_)) | Err(_) => Loss::NotRenewed {
                name: self.election.name.clone(),
                deadline: self.election.timing.renew_deadline,
                cause: "the renewal task panicked".to_owned(),
            },
        }
    }

    /// A handle for writers, to check right before a write that this replica still leads.
    #[must_use]
    pub fn handle(&self) -> LeaderHandle {
        LeaderHandle(self.state.clone())
    }

    /// Releases the Lease, so that another replica leads within a retry period. Call it after all work has stopped.
    ///
    /// # Errors
    /// [`RequestError`] if the API server did not accept it; the others then wait until the Lease has expired.
    pub async fn release(self) -> Result<(), RequestError> {
        // The renewal ends between two requests, so none can overtake the release.
        drop(self.stop);
        if let Err(error) = self.renewal.await {
            tracing::error!(%error, "the renewal of the Lease panicked");
        }
        self.election.vacate().await
    }
}

/// Whether this process may still write.
#[derive(Debug, Clone)]
pub struct LeaderHandle(watch::Receiver<State>);

impl LeaderHandle {
    /// True while the last renewal is younger than the renew deadline, by the clock of this very moment: a process that
    /// was stopped for longer than its Lease gets `false` on its first call, before any task has noticed the loss.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(&*self.0.borrow(), State::HeldUntil(until) if Instant::now() < *until)
    }
}

impl LeaderElection {
    /// Renews until the Lease is lost (then returns why) or `stop` is sent or dropped.
    async fn renew(
        self,
        mut view: View,
        state: watch::Sender<State>,
        mut until: Instant,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut cause = String::from("no attempt ended");
        loop {
            let next = until.min(Instant::now() + self.timing.retry);
            tokio::select! {
                _ = &mut stop => {
                    state.send_replace(State::HeldUntil(Instant::now()));
                    return;
                }
                () = sleep_until(next) => {}
            }
            // `timeout_at` polls its future before its clock: after a long pause the clock must be checked first.
            if Instant::now() >= until {
                break;
            }
            match timeout_at(until, self.attempt(&mut view)).await {
                Ok(Ok(Attempt::Held { sent })) => {
                    until = sent + self.timing.renew_deadline;
                    state.send_replace(State::HeldUntil(until));
                }
                Ok(Ok(Attempt::HeldBy(holder))) => {
                    state.send_replace(State::Lost(Loss::Taken {
                        name: self.name,
                        holder,
                    }));
                    return;
                }
                Ok(Err(error)) => {
                    self.warn(&error);
                    cause = chain(&error);
                }
                Err(_) => break,
            }
        }
        let deadline = self.timing.renew_deadline;
        state.send_replace(State::Lost(Loss::NotRenewed {
            name: self.name,
            deadline,
            cause,
        }));
    }
}
