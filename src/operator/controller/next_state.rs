//! How a run changes the state of its object, and when the next one is due. Pure.

use std::time::{Duration, Instant};

use super::state::{LastRun, ObjectState};
use super::trigger::Trigger;
use crate::operator::api::ReconcileRequest;
use crate::operator::status::StatusWrite;
use crate::operator::steps::outcome::Outcome;
use crate::pipeline::reason::Disposition;

/// The first delay after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest delay after a failure, unless the interval is shorter.
const LAST_RETRY: Duration = Duration::from_mins(5);
/// The first delay after a conflict: the time for a watch to show what the other client did.
const FIRST_CONFLICT_RETRY: Duration = Duration::from_millis(100);
/// The longest delay after a conflict. A client that writes all the time must not cost a run for each of its writes.
const LAST_CONFLICT_RETRY: Duration = Duration::from_secs(10);
/// How many conflicts in a row are nothing to report: each is a new run, and one of these usually succeeds.
const TOLERATED_CONFLICTS: u32 = 5;
/// The jitter of every delay, as a part of it, so that objects created together do not stay in step.
const JITTER: f64 = 0.1;
/// How soon a tag is resolved again whose shared result may be older than the change that triggered the run.
const REVALIDATION: Duration = Duration::from_secs(10);

/// All that the next state depends on, beside the previous state.
#[derive(Debug)]
pub(crate) struct EndedRun<'a> {
    /// Why there was a run; none where the object is suspended.
    pub trigger: Option<Trigger>,
    /// The request that the run handled.
    pub request: ReconcileRequest,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// What became of its status.
    pub written: StatusWrite,
    /// The interval of the object.
    pub interval: Duration,
    /// Between 0 and 1.
    pub jitter: f64,
}

impl ObjectState {
    /// Whether a run that ended like this is retried without being reported.
    #[must_use]
    pub(crate) fn tolerates(&self, outcome: &Outcome) -> bool {
        outcome.is_conflict() && self.conflicts < TOLERATED_CONFLICTS
    }
}

/// The state after a run, and how long to wait before the next one. None: only a change wakes the object.
#[must_use]
pub(crate) fn next_state(before: ObjectState, run: EndedRun<'_>) -> (ObjectState, Option<Duration>) {
    let is_conflict = run.is_conflict();
    // A user who requests a run may have repaired the cause, so earlier failures do not count.
    let failures = if run.trigger == Some(Trigger::Requested) {
        0
    } else {
        before.failures
    };
    let mut state = ObjectState {
        failures: if is_conflict {
            failures
        } else if run.is_failed() {
            failures.saturating_add(1)
        } else {
            0
        },
        conflicts: if is_conflict {
            before.conflicts.saturating_add(1)
        } else {
            0
        },
        restorations: match run.trigger {
            Some(Trigger::ConfigMapChanged) => before.restorations.saturating_add(1),
            _ => 0,
        },
        revalidate_after: run.is_outdated().then_some(run.started),
        config_maps: before.config_maps,
        last_run: None,
    };
    let delay = time_until_due(&state, &run);
    state.last_run = delay.map(|delay| LastRun {
        request: run.request,
        started: run.started,
        ended: run.ended,
        next_due: run.ended + delay,
        is_reported: !matches!(
            run.written,
            StatusWrite::Withheld | StatusWrite::Conflict | StatusWrite::Failed
        ),
        status_version: run.written.version(),
    });
    (state, delay)
}

impl EndedRun<'_> {
    fn is_conflict(&self) -> bool {
        self.written == StatusWrite::Conflict || self.outcome.is_conflict()
    }

    fn is_failed(&self) -> bool {
        self.written == StatusWrite::Failed || matches!(self.outcome, Outcome::Failure(_))
    }

    /// Whether the result may be from before the run, and so miss the push or the signature that a user requested it for.
    fn is_outdated(&self) -> bool {
        let is_older = self.outcome.resolved_at().is_none_or(|at| at < self.started);
        is_older && self.trigger.is_some_and(Trigger::is_user_initiated)
    }
}

/// How long to wait after a run.
fn time_until_due(state: &ObjectState, run: &EndedRun<'_>) -> Option<Duration> {
    let retry = || backoff(FIRST_RETRY, LAST_RETRY.min(run.interval), state.failures);
    let next_check = match state.revalidate_after {
        Some(_) => REVALIDATION.min(run.interval),
        None => run.interval,
    };
    let delay = if run.is_conflict() {
        backoff(
            FIRST_CONFLICT_RETRY,
            LAST_CONFLICT_RETRY.min(run.interval),
            state.conflicts,
        )
    } else if run.written == StatusWrite::Failed {
        retry()
    } else {
        match (run.outcome, run.outcome.disposition()) {
            (Outcome::Suspended, _) => return None,
            (_, Some(Disposition::Retry)) => retry(),
            // At least this long: the server asked for it.
            (_, Some(Disposition::WaitFor(wait))) => wait,
            (_, Some(Disposition::Stalled) | None) => next_check,
        }
    };
    Some(delay.mul_f64(1.0 + JITTER * run.jitter.clamp(0.0, 1.0)))
}

/// `first`, doubled with each of `count` after the first, so that what is down is not hammered by all objects.
fn backoff(first: Duration, last: Duration, count: u32) -> Duration {
    first.saturating_mul(1 << count.saturating_sub(1).min(16)).min(last)
}

#[cfg(test)]
mod tests;
