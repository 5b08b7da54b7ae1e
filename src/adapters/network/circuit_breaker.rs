//! Circuit breakers for hosts that do not answer, so that not every caller has to wait for them.
//!
//! After [`FAILURES`] requests in a row without a response the circuit of a host opens: further requests fail at once
//! with the error of the last one, except for one probe of each tenant at a time. The first response closes it, whatever
//! its status: a host that responds with 503 is quick about it, and says when to come back.
//!
//! **Security invariant:** no tenant can make a host fail for another.
//!
//! * A circuit belongs to a host *and* the settings by which it is reached, so one tenant's certificates or plain HTTP
//!   say nothing about the host of others.
//! * The requests without a response may have been about something that only one tenant can ask for, such as a
//!   repository that a registry fetches from a server of that tenant. So each tenant has a probe of its own, and an open
//!   circuit does not stop a caller that had a response within the last hour, until its own request fails, too. If there
//!   are so many that some must be forgotten, the tenant with the most of them loses one.
//! * A request that its sender gave up counts only after [`PATIENCE`]: a run with one second left says nothing about
//!   the host.
//! * Hosts are chosen by attackers. At most [`MAX_CIRCUITS`] are kept; the least recently used goes first, and its host
//!   is then one of which nothing is known.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::error::NetworkError;
use crate::domain::access::{AccessKey, Tenant};
use crate::domain::digest::Digest;

/// Requests without a response, one after the other, that open a circuit.
const FAILURES: u32 = 3;
/// How long an abandoned request must have waited to count as a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most circuits kept.
const MAX_CIRCUITS: u64 = 512;
/// A circuit of a host that was not used for so long is dropped.
const IDLE: Duration = Duration::from_hours(1);
/// For how long, and for how many callers of one host, it is known that they had a response.
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

/// Who sends a request, and with what.
pub(crate) type Caller = (Tenant, AccessKey);

/// The circuits of all hosts.
pub(crate) struct CircuitBreakers(Cache<Route, Arc<Mutex<Circuit>>>);

/// What is known of one host.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    /// Failures since the last response.
    failures: u32,
    /// The last of them.
    error: Option<NetworkError>,
    /// Whose probes are under way.
    probing: HashSet<Tenant>,
    /// Who had a response, and when.
    answered: HashMap<Caller, Instant>,
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
    /// Lets a request of `caller` through, or fails it with the error of the last one.
    pub(crate) async fn attempt(&self, route: Route, caller: Caller) -> Result<Attempt, NetworkError> {
        let circuit = self.0.get_with(route.clone(), async { Arc::default() }).await;
        let is_probe = lock(&circuit).enter(&caller)?;
        Ok(Attempt {
            circuit,
            caller,
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
    fn enter(&mut self, caller: &Caller) -> Result<bool, NetworkError> {
        let was_answered = |at: &Instant| at.elapsed() < ANSWERED_FOR;
        if !self.is_open() || self.answered.get(caller).is_some_and(was_answered) {
            return Ok(false);
        }
        match &self.error {
            Some(error) if self.probing.contains(&caller.0) => Err(error.clone()),
            _ => Ok(self.probing.insert(caller.0.clone())),
        }
    }

    fn answer(&mut self, caller: Caller) {
        self.failures = 0;
        self.error = None;
        if self.answered.len() >= MAX_ANSWERED && !self.answered.contains_key(&caller) {
            self.forget_one();
        }
        self.answered.insert(caller, Instant::now());
    }

    /// Forgets the oldest response of the tenant with the most.
    fn forget_one(&mut self) {
        let mut counts: HashMap<&Tenant, usize> = HashMap::new();
        for (tenant, _) in self.answered.keys() {
            *counts.entry(tenant).or_default() += 1;
        }
        let most = counts.values().copied().max();
        let of_most = |(tenant, _): &Caller| counts.get(tenant).copied() == most;
        let candidates = self.answered.iter().filter(|(caller, _)| of_most(caller));
        let oldest = candidates.min_by_key(|(_, at)| **at).map(|(caller, _)| caller.clone());
        oldest.map(|oldest| self.answered.remove(&oldest));
    }

    fn fail(&mut self, caller: &Caller, error: NetworkError) {
        self.failures = self.failures.saturating_add(1);
        self.error = Some(error);
        self.answered.remove(caller);
    }
}

/// A request under way. One that is dropped without a result was abandoned.
#[must_use = "report how it ended"]
pub(crate) struct Attempt {
    circuit: Arc<Mutex<Circuit>>,
    caller: Caller,
    host: String,
    is_probe: bool,
    started: Instant,
    is_over: bool,
}

impl Attempt {
    /// The host answered.
    pub(crate) fn answered(mut self) {
        self.is_over = true;
        lock(&self.circuit).answer(self.caller.clone());
    }

    /// The host did not answer.
    pub(crate) fn failed(mut self, error: NetworkError) {
        self.is_over = true;
        lock(&self.circuit).fail(&self.caller, error);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut circuit = lock(&self.circuit);
        if self.is_probe {
            circuit.probing.remove(&self.caller.0);
        }
        if !self.is_over && self.started.elapsed() >= PATIENCE {
            circuit.fail(&self.caller, NetworkError::timed_out(&self.host));
        }
    }
}

fn lock(circuit: &Mutex<Circuit>) -> MutexGuard<'_, Circuit> {
    // Each change is one assignment, so a panic elsewhere leaves the state consistent.
    circuit.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
