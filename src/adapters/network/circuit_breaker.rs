//! Circuit breakers for hosts that do not answer, so that not every caller has to wait for them.
//!
//! After [`FAILURES`] requests in a row without an answer the circuit of a host opens: further requests fail at once
//! with the error of the last one, but for one probe at a time. The first answer closes it. An answer is anything that
//! came from the host, whatever its status: a host that says 503 says when to come back, and is quick about it.
//!
//! **Security invariant:** no tenant can make a host fail for another.
//!
//! * A circuit belongs to a host *and* the settings by which it is reached, so one tenant's certificates or plain HTTP
//!   say nothing about the host of others.
//! * The requests that went unanswered may have been about something that only one tenant can ask for, such as a
//!   repository that a registry fetches from a server of that tenant. So an open circuit does not stop a caller that
//!   was answered within the last hour, until its own request fails, too.
//! * A request that its sender gave up counts only after [`PATIENCE`]: a run with one second left says nothing about
//!   the host.
//! * Hosts are chosen by attackers. At most [`MAX_CIRCUITS`] are kept; the least recently used goes first, and its host
//!   is then one of which nothing is known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::error::NetworkError;
use crate::domain::access::AccessKey;
use crate::domain::digest::Digest;

/// Requests without an answer, one after the other, that open a circuit.
const FAILURES: u32 = 3;
/// How long an abandoned request must have waited to count as a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most circuits kept.
const MAX_CIRCUITS: u64 = 512;
/// A circuit of a host that was not used for so long is dropped.
const IDLE: Duration = Duration::from_hours(1);
/// For how long, and of how many for one host, it is known that they were answered.
const ANSWERED_FOR: Duration = Duration::from_hours(1);
const MAX_ANSWERED: usize = 256;

/// A host as one kind of sender reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    /// Host and port.
    pub(crate) host: String,
    /// The fingerprint of the transport settings.
    pub(crate) settings: Digest,
}

/// The circuits of all hosts.
pub(crate) struct CircuitBreakers(Cache<Route, Arc<Mutex<Circuit>>>);

/// What is known of one host.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    /// Failures since the last answer.
    failures: u32,
    /// The last of them.
    error: Option<NetworkError>,
    /// Whether a probe is under way.
    probing: bool,
    /// Who was answered, and when.
    answered: HashMap<AccessKey, Instant>,
}

impl Default for CircuitBreakers {
    fn default() -> Self {
        let circuits = Cache::builder()
            .max_capacity(MAX_CIRCUITS)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(IDLE)
            .build();
        Self(circuits)
    }
}

impl CircuitBreakers {
    /// Lets a request of `sender` through, or fails it with the error of the last one.
    pub(crate) async fn attempt(&self, route: Route, sender: AccessKey) -> Result<Attempt, NetworkError> {
        let circuit = self.0.get_with(route.clone(), async { Arc::default() }).await;
        let is_probe = lock(&circuit).enter(&sender)?;
        Ok(Attempt {
            circuit,
            sender,
            host: route.host,
            is_probe,
            started: Instant::now(),
            is_over: false,
        })
    }

    /// Whether requests by this route fail at once, so that a retry is of no use.
    pub(crate) async fn is_open(&self, route: &Route) -> bool {
        self.0.get(route).await.is_some_and(|circuit| lock(&circuit).is_open())
    }
}

impl Circuit {
    fn is_open(&self) -> bool {
        self.failures >= FAILURES
    }

    /// Whether the request is the probe of an open circuit.
    fn enter(&mut self, sender: &AccessKey) -> Result<bool, NetworkError> {
        let was_answered = |at: &Instant| at.elapsed() < ANSWERED_FOR;
        if !self.is_open() || self.answered.get(sender).is_some_and(was_answered) {
            return Ok(false);
        }
        match &self.error {
            Some(error) if self.probing => Err(error.clone()),
            _ => {
                self.probing = true;
                Ok(true)
            }
        }
    }

    fn answer(&mut self, sender: AccessKey) {
        self.failures = 0;
        self.error = None;
        if self.answered.len() >= MAX_ANSWERED && !self.answered.contains_key(&sender) {
            let oldest = self.answered.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key);
            oldest.map(|oldest| self.answered.remove(&oldest));
        }
        self.answered.insert(sender, Instant::now());
    }

    fn fail(&mut self, sender: &AccessKey, error: NetworkError) {
        self.failures = self.failures.saturating_add(1);
        self.error = Some(error);
        self.answered.remove(sender);
    }
}

/// A request under way. One that is dropped without a result was abandoned.
#[must_use = "report how it ended"]
pub(crate) struct Attempt {
    circuit: Arc<Mutex<Circuit>>,
    sender: AccessKey,
    host: String,
    is_probe: bool,
    started: Instant,
    is_over: bool,
}

impl Attempt {
    /// The host answered.
    pub(crate) fn answered(mut self) {
        self.is_over = true;
        lock(&self.circuit).answer(self.sender);
    }

    /// The host did not answer.
    pub(crate) fn failed(mut self, error: NetworkError) {
        self.is_over = true;
        lock(&self.circuit).fail(&self.sender, error);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut circuit = lock(&self.circuit);
        if self.is_probe {
            circuit.probing = false;
        }
        if !self.is_over && self.started.elapsed() >= PATIENCE {
            circuit.fail(&self.sender, NetworkError::timed_out(&self.host));
        }
    }
}

fn lock(circuit: &Mutex<Circuit>) -> MutexGuard<'_, Circuit> {
    // Each change is one assignment, so a panic elsewhere leaves the state consistent.
    circuit.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
