//! Why an object is run, whether there is anything to do now, and how old a result of the registry may be. Pure.

use std::time::{Duration, Instant};

use super::state::{LastRun, ObjectState};
use crate::operator::api::ReconcileRequest;
use crate::operator::api::spec::PolicyImage;
use crate::operator::identity::resource_version_number;
use crate::pipeline::single_flight::{FAILURE_SHARED_FOR, Freshness};

/// How soon an object is checked again whose watch has not yet shown our last write.
const STALE_VIEW_RETRY: Duration = Duration::from_millis(200);

/// How long to wait for the watch to show our last write.
const STALE_VIEW_LIMIT: Duration = Duration::from_secs(10);

/// The least time between two runs that a user requests.
const REQUEST_SPACING: Duration = Duration::from_secs(1);

/// The delay of the second restoration in a row, and the longest.
const RESTORATION_SPACING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why an object is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The spec has changed since the last run.
    SpecChanged,
    /// A user requested it, by the annotation.
    Requested,
    /// The ConfigMap is not as the last run left it.
    ConfigMapChanged,
    /// The next run is due: the interval or the delay after a failure is over, or the program has just started.
    Due,
}

/// What to do about an object that woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing, ever: it is being deleted.
    Skip,
    /// Say that it is suspended.
    Suspend,
    /// There is something to do.
    Run(Trigger),
    /// There is nothing to do for this long. Most wake-ups are of that kind, because our own writes come back through
    /// the watches.
    Wait(Duration),
}

/// Decides what to do about an object that woke up. `is_intact` is whether the watch shows its ConfigMaps as the last
/// run left them.
#[must_use]
pub(crate) fn decide(object: &PolicyImage, state: &ObjectState, is_intact: bool, now: Instant) -> Decision {
    if object.metadata.deletion_timestamp.is_some() {
        return Decision::Skip;
    }
    let last = state.last_run.as_ref();
    if last.is_some_and(|last| is_stale(object, last, now)) {
        return Decision::Wait(STALE_VIEW_RETRY);
    }
    if object.spec.suspend {
        return Decision::Suspend;
    }
    let request = ReconcileRequest::of(object);
    let unreported = || {
        let handled = request.last_handled(object.status.as_ref());
        pending_trigger(&request, &handled).unwrap_or(Trigger::Due)
    };
    let Some(last) = last else {
        return Decision::Run(unreported());
    };
    match pending_trigger(&request, &last.request) {
        Some(Trigger::Requested) => run_at(last.started + REQUEST_SPACING, now, || Trigger::Requested),
        Some(trigger) => Decision::Run(trigger),
        // Where another client writes all the time, each of its writes would be a run.
        None if !is_intact && state.conflicts == 0 => {
            let due = (last.started + restoration_spacing(state.restorations)).min(last.next_due);
            run_at(due, now, || Trigger::ConfigMapChanged)
        }
        None if last.is_reported => run_at(last.next_due, now, || Trigger::Due),
        None => run_at(last.next_due, now, unreported),
    }
}

/// How long after the previous run a changed ConfigMap is restored: at once, unless that run restored it, too. Whoever
/// changes a byte of a large ConfigMap again and again would have it written whole each time.
fn restoration_spacing(restorations: u32) -> Duration {
    let (first, last) = RESTORATION_SPACING;
    match restorations.checked_sub(1) {
        None => Duration::ZERO,
        Some(doubled) => first.saturating_mul(1 << doubled.min(16)).min(last),
    }
}

fn run_at(due: Instant, now: Instant, trigger: impl FnOnce() -> Trigger) -> Decision {
    match due.checked_duration_since(now) {
        Some(left) if !left.is_zero() => Decision::Wait(left),
        _ => Decision::Run(trigger()),
    }
}

/// Whether `object` is older than what this process has written to it. What is decided on such a view would be done and
/// reported twice. Watches lag only briefly; a cluster restored from a backup stays older, and is accepted after the
/// limit.
fn is_stale(object: &PolicyImage, last: &LastRun, now: Instant) -> bool {
    let older_generation = object.metadata.generation < last.request.generation;
    let older_version = resource_version_number(&object.metadata)
        .zip(last.status_version)
        .is_some_and(|(seen, written)| seen < written);
    (older_generation || older_version) && now < last.ended + STALE_VIEW_LIMIT
}

/// The trigger, where `request` asks for more than the run that handled `handled` has done.
fn pending_trigger(request: &ReconcileRequest, handled: &ReconcileRequest) -> Option<Trigger> {
    if request.generation != handled.generation {
        Some(Trigger::SpecChanged)
    } else if request.requested_at.is_some() && request.requested_at != handled.requested_at {
        Some(Trigger::Requested)
    } else {
        None
    }
}

impl Trigger {
    /// Whether a user wants the run, and waits for its result.
    #[must_use]
    pub(crate) fn is_user_initiated(self) -> bool {
        matches!(self, Self::SpecChanged | Self::Requested)
    }

    /// How fresh the results of the registry must be for a run that began at `started`. A user's request gets a new one,
    /// a change and a retry get a nearly new one, and a periodic run shares one with others.
    #[must_use]
    pub(crate) fn freshness(self, state: &ObjectState, interval: Duration, started: Instant) -> Freshness {
        let age = match self {
            Self::Requested => return Freshness::New,
            Self::SpecChanged => FAILURE_SHARED_FOR,
            Self::ConfigMapChanged | Self::Due if state.failures > 0 => FAILURE_SHARED_FOR,
            Self::ConfigMapChanged | Self::Due => tolerated_age(interval),
        };
        let oldest = started.checked_sub(age).unwrap_or(started);
        Freshness::Since(state.revalidate_after.map_or(oldest, |moment| oldest.max(moment)))
    }
}

/// How old the shared resolution of a tag may be in a periodic run.
fn tolerated_age(interval: Duration) -> Duration {
    (interval / 10).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

#[cfg(test)]
mod tests;
