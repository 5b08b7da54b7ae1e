//! The story of one run: may it write, is there anything to do, do it in time, keep what serves, say so, and plan the next.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::controller::Action;

use super::context::{ConfigMaps, Context, watched};
use super::state::{EndedRun, ObjectState, next_state};
use super::trigger::{self, Decision, Trigger};
use crate::operator::api::Request;
use crate::operator::api::spec::PolicyImage;
use crate::operator::identity::ObjectKey;
use crate::operator::reconcile::outcome::{Failure, Outcome, StepError, Success};
use crate::operator::reconcile::{self, restore, validate};
use crate::pipeline::ports::Ports;
use crate::pipeline::reason::Classify as _;

/// The interval of an object whose interval cannot be read.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(5);

/// How long it may take to look after the last good bundle.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// How soon an object is run again that could not even be told that its run panicked.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// Waits for a slot, then runs the object if there is anything to do, and says when it is due again.
pub async fn reconcile<P: Ports>(object: &PolicyImage, context: &Context<P>, config_maps: &ConfigMaps) -> Action {
    let Ok(key) = ObjectKey::of(&object.metadata) else {
        return Action::await_change();
    };
    let waiting = context.metrics.wait();
    // The slots are closed when the program stops.
    let Ok(_slot) = context.slots.acquire().await else {
        return Action::await_change();
    };
    drop(waiting);
    // Boxed, so that a thousand objects that wait do not each hold the space of a run.
    let run = AssertUnwindSafe(Box::pin(reconcile_in_slot(object, &key, context, config_maps))).catch_unwind();
    run.await.unwrap_or_else(|_| {
        // All objects share one task: without this second net, a panic while one is reported on would end them all.
        context.metrics.panicked();
        Action::requeue(AFTER_PANIC)
    })
}

async fn reconcile_in_slot<P: Ports>(
    object: &PolicyImage,
    key: &ObjectKey,
    context: &Context<P>,
    config_maps: &ConfigMaps,
) -> Action {
    if object.metadata.deletion_timestamp.is_some() || context.gate.client().is_err() {
        return Action::await_change();
    }
    let mut state = context.states.get(key);
    let applied = state.config_map.applied.as_ref();
    let config_map = applied.and_then(|applied| watched(config_maps, &key.namespace, &applied.name));
    let config_map = config_map.as_ref();
    let started = Instant::now();
    let trigger = match trigger::decide(object, &state, config_map, started) {
        Decision::Run(trigger) => trigger,
        Decision::Wait(delay) => return Action::requeue(delay),
    };
    let measured = context.metrics.run();
    let outcome = if object.spec.suspend {
        Outcome::Suspended
    } else {
        let outcome = with_deadline(object, context, &mut state, trigger, config_map).await;
        restore_after_failure(object, context, &mut state, config_map, outcome).await
    };
    log(key, &outcome);
    let written = context.status.write(object, &outcome).await;
    measured.ended(outcome.reason(), outcome.disposition());
    let run = EndedRun {
        request: Request::of(object),
        started,
        ended: Instant::now(),
        outcome: &outcome,
        written,
        interval: interval(object),
        jitter: fastrand::f64(),
    };
    let (state, delay) = next_state(state, run);
    context.states.put(key, state);
    delay.map_or_else(Action::await_change, Action::requeue)
}

fn interval(object: &PolicyImage) -> Duration {
    validate::interval(&object.spec).unwrap_or(DEFAULT_INTERVAL)
}

/// One run within its deadline. A panic ends this run and nothing else.
async fn with_deadline<P: Ports>(
    object: &PolicyImage,
    context: &Context<P>,
    state: &mut ObjectState,
    trigger: Trigger,
    config_map: Option<&ObjectMeta>,
) -> Outcome {
    let deadline = validate::timeout(&object.spec).unwrap_or(validate::DEFAULT_TIMEOUT);
    let run = AssertUnwindSafe(run_once(object, context, state, trigger, config_map)).catch_unwind();
    match tokio::time::timeout(deadline, run).await {
        Ok(Ok(Ok(success))) => Outcome::Success(Box::new(success)),
        Ok(Ok(Err(failure))) => Outcome::Failure(failure),
        Ok(Err(_)) => {
            context.metrics.panicked();
            Outcome::Failure(Failure::from(StepError::Panic))
        }
        Err(_) => Outcome::Failure(Failure::from(StepError::DeadlineExceeded(deadline))),
    }
}

/// The steps up to the delivery.
async fn run_once<P: Ports>(
    object: &PolicyImage,
    context: &Context<P>,
    state: &mut ObjectState,
    trigger: Trigger,
    config_map: Option<&ObjectMeta>,
) -> Result<Success, Failure> {
    let started = Instant::now();
    if trigger == Trigger::Requested {
        // Whoever asks knows what was repaired; what failed before says nothing about that.
        state.failures = 0;
    }
    let not_before = trigger.not_before(state, interval(object), started);
    let plan = reconcile::plan(object, &context.objects, context.options).await;
    if let Ok(plan) = &plan {
        state.config_map.forget_what_is_not_admitted_by(&plan.trust);
    }
    let verified = match plan {
        Ok(plan) => reconcile::resolve_and_verify(plan, &context.pipeline, not_before).await,
        Err(error) => Err(error),
    };
    // An answer from before this run may miss the push or the signature that made somebody ask for the run.
    let may_be_outdated = verified.as_ref().map_or(true, |verified| {
        !verified.plan.source.is_pinned() && verified.resolved_at < started
    });
    state.revalidate_after = (may_be_outdated && trigger.is_awaited()).then_some(started);
    let (gate, state) = (&context.gate, &mut state.config_map);
    reconcile::apply(object, gate, &context.pipeline, &verified?, state, config_map).await
}

/// A run that failed may not have got as far as the target.
async fn restore_after_failure<P>(
    object: &PolicyImage,
    context: &Context<P>,
    state: &mut ObjectState,
    config_map: Option<&ObjectMeta>,
    outcome: Outcome,
) -> Outcome {
    let Outcome::Failure(failure) = outcome else {
        return outcome;
    };
    let (gate, state) = (&context.gate, &mut state.config_map);
    let missing = restore::last_good_missing(gate, object, &failure.error, state, config_map);
    let last_good_missing = tokio::time::timeout(RESTORE_TIMEOUT, missing).await.unwrap_or_default();
    Outcome::Failure(Failure {
        last_good_missing,
        ..failure
    })
}

fn log(key: &ObjectKey, outcome: &Outcome) {
    let (namespace, name) = (&key.namespace, &key.name);
    match outcome {
        Outcome::Suspended => tracing::debug!(namespace, name, "suspended"),
        Outcome::Success(success) => {
            let (digest, delivered) = (*success.revision.digest(), success.bundle.is_some());
            if delivered {
                tracing::info!(namespace, name, %digest, "delivered");
            } else {
                tracing::debug!(namespace, name, %digest, "unchanged");
            }
        }
        Outcome::Failure(failure) => {
            let (reason, error) = (failure.error.reason().as_str(), failure.error.explain());
            tracing::warn!(namespace, name, reason, error, "not reconciled");
        }
    }
}
