//! Leader election on a `coordination.k8s.io/v1` Lease, with the semantics of client-go, so that the two can share one.
//!
//! # Guarantees
//! - A candidate takes somebody else's Lease only after it has watched it, unchanged, for the whole duration written in
//!   it, by its own monotonic clock. Times written by others are never compared with the local clock, so no skew or step
//!   of a clock steals a Lease.
//! - Every write names the `resourceVersion` (or is a create), so of any number of candidates one wins.
//! - The leader stops counting itself as leader one renew deadline after it *sent* its last successful renewal. The
//!   renew deadline is shorter than the Lease, so it stops before anybody else can start, also when the API server hangs.
//!
//! # Assumptions
//! Monotonic clocks of all candidates run at about the same speed, and go on while the process is stopped (they do after
//! `SIGSTOP`; a virtual machine that is suspended and resumed sees no time pass).
//!
//! # Caveats
//! A process that is stopped between [`Tenure::holds`] and the write it guards writes late. Writes that must not be
//! repeated out of order need their own precondition.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use self::lease::{Decision, View, held_by, released};

mod lease;
#[cfg(test)]
mod tests;

/// How long a leader leads without renewing, and how often it renews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

impl Timing {
    /// Checks that a leader always stops before its Lease ends: `lease` > `renew_deadline` > 1.2 × `retry` > 0.
    ///
    /// `lease` is in whole seconds, because that is what a Lease can say.
    ///
    /// # Errors
    /// [`TimingError`] where the order or the unit is wrong.
    pub fn new(lease: Duration, renew_deadline: Duration, retry: Duration) -> Result<Self, TimingError> {
        if lease.subsec_nanos() != 0 || i32::try_from(lease.as_secs()).is_err() {
            return Err(TimingError::NotWholeSeconds { lease });
        }
        // The factor is client-go's: it leaves room for at least one retry before the deadline.
        if lease <= renew_deadline || renew_deadline <= retry.mul_f32(1.2) || retry.is_zero() {
            return Err(TimingError::WrongOrder {
                lease,
                renew_deadline,
                retry,
            });
        }
        Ok(Self {
            lease,
            renew_deadline,
            retry,
        })
    }

    /// No request may eat the whole deadline: after one that hangs, there is time for another.
    fn request_timeout(self) -> Duration {
        self.renew_deadline / 2
    }

    /// Between once and 1.2 times the retry period, so that candidates do not ask in step.
    fn jittered_retry(self) -> Duration {
        self.retry.mul_f32(1.0 + 0.2 * fastrand::f32())
    }
}

/// What every Kubernetes component uses: 15 s, 10 s, 2 s.
impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Why a [`Timing`] is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A Lease says its duration in whole seconds.
    #[error("the lease duration '{lease:?}' is not a whole number of seconds")]
    NotWholeSeconds {
        /// What was given.
        lease: Duration,
    },
    /// Two leaders at once would be possible.
    #[error(
        "the lease duration '{lease:?}' must be longer than the renew deadline '{renew_deadline:?}', and that longer than 1.2 times the retry period '{retry:?}'"
    )]
    WrongOrder {
        /// The duration of the Lease.
        lease: Duration,
        /// How long the leader tries to renew.
        renew_deadline: Duration,
        /// How long it waits in between.
        retry: Duration,
    },
}

/// Why leadership ended. The process must stop all work and exit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Somebody else holds the Lease.
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
        /// What the last attempt met.
        cause: String,
    },
}

/// Why one request for the Lease failed. Tried again, until the renew deadline where there is one.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server did not answer in time.
    #[error("the API server did not answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// Another candidate was faster, or the Lease was deleted between reading and writing.
    #[error("the Lease changed while it was being written")]
    Conflict,
    /// The API server refused: the usual cause is missing rights.
    #[error("the API server refused: {0}")]
    Refused(String),
    /// No connection, or an answer that cannot be read.
    #[error("the API server cannot be used")]
    Unusable(#[source] kube::Error),
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => Self::Conflict,
            kube::Error::Api(status) => Self::Refused(status.message),
            other => Self::Unusable(other),
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

    /// Waits until this candidate leads, however long that takes. API errors are logged and tried again.
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

    /// One look at the Lease and, where `View` says so, one write.
    async fn attempt(&self, view: &mut View) -> Result<Attempt, RequestError> {
        // A leader knows what it wrote last and does not read it again. After any failure it reads.
        let lease = match view.take_own() {
            Some(own) => Some(own),
            None => self.bounded(self.api.get_opt(&self.name)).await?,
        };
        let sent = Instant::now();
        let parameters = PostParams::default();
        let written = match view.decide(&self.identity, lease, sent) {
            Decision::Wait { holder } => return Ok(Attempt::HeldBy(holder)),
            Decision::Create => {
                let lease = held_by(&self.identity, Lease::default(), self.timing.lease, Timestamp::now());
                let lease = lease::named(lease, &self.name);
                self.bounded(self.api.create(&parameters, &lease)).await?
            }
            Decision::Hold { lease } => {
                let lease = held_by(&self.identity, *lease, self.timing.lease, Timestamp::now());
                self.bounded(self.api.replace(&self.name, &parameters, &lease)).await?
            }
        };
        view.keep_own(written);
        Ok(Attempt::Held { sent })
    }

    async fn bounded<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
        let limit = self.timing.request_timeout();
        timeout(limit, request)
            .await
            .map_err(|_| RequestError::Timeout(limit))?
            .map_err(RequestError::from)
    }

    /// Renews until the Lease is lost (then says why) or `stop` is sent or dropped.
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
                _ = &mut stop => return,
                () = sleep_until(next) => {}
            }
            // `timeout_at` polls its future before its clock: after a long pause the clock must be asked first.
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
                    cause = crate::pipeline::failure::chain(&error);
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

    /// Gives the Lease up, if it is ours.
    async fn vacate(&self) -> Result<(), RequestError> {
        let Some(lease) = self.bounded(self.api.get_opt(&self.name)).await? else {
            return Ok(());
        };
        if lease::holder(&lease) != Some(self.identity.as_str()) {
            return Ok(());
        }
        let lease = released(lease, Timestamp::now());
        self.bounded(self.api.replace(&self.name, &PostParams::default(), &lease))
            .await?;
        Ok(())
    }

    fn warn(&self, error: &RequestError) {
        let error = crate::pipeline::failure::chain(error);
        tracing::warn!(lease = self.name, error, "leader election failed; trying again");
    }
}

/// What one attempt found out.
enum Attempt {
    /// We hold the Lease; `sent` is when the successful write was sent, so the server has it since then or later.
    Held { sent: Instant },
    /// Somebody else does.
    HeldBy(String),
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
    fn start(election: LeaderElection, view: View, sent: Instant) -> Self {
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

    /// Waits until leadership is lost, and says why. The process must then stop all work at once and exit.
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
                cause: "the renewal broke down".to_owned(),
            },
        }
    }

    /// A handle for those who write, to ask right before a write whether they still may.
    #[must_use]
    pub fn tenure(&self) -> Tenure {
        Tenure(self.state.clone())
    }

    /// Gives the Lease up, so that another replica leads within a retry period. Call it after all work has stopped.
    ///
    /// # Errors
    /// [`RequestError`] where the API server did not take it; the others then wait until the Lease has run out.
    pub async fn release(self) -> Result<(), RequestError> {
        // The renewal ends between two requests, so none can overtake the release.
        drop(self.stop);
        if let Err(error) = self.renewal.await {
            tracing::error!(%error, "the renewal of the Lease broke down");
        }
        self.election.vacate().await
    }
}

/// Whether this process may still write.
#[derive(Debug, Clone)]
pub struct Tenure(watch::Receiver<State>);

impl Tenure {
    /// True while the last renewal is younger than the renew deadline, by the clock of this very moment: a process that
    /// was stopped for longer than its Lease gets `false` on its first question, before any task has noticed the loss.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(&*self.0.borrow(), State::HeldUntil(until) if Instant::now() < *until)
    }
}
