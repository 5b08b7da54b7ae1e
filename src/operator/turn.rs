//! One object's turn: a slot, a run, and what is told about it.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;

use super::api::spec::PolicyImage;
use super::context::{ConfigMaps, Context, watched};
use super::kube_error::describe;
use super::metrics::{self, Run};
use super::reconcile::hold;
use super::reconcile::memory::{ObjectState, Request};
use super::reconcile::outcome::{Failure, Outcome, StepError, Success};
use super::reconcile::schedule::{self, changed, tolerated_age};
use super::reconcile::{self, status, validate};
use super::report;
use crate::pipeline::ports::Ports;
use crate::pipeline::reason::{Classify as _, Reason};
use crate::pipeline::single_flight::FAILURE_SHARED_FOR;

/// The interval of an object whose interval cannot be read.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(5);

/// How long it may take to look after the last good bundle.
const HOLD: Duration = Duration::from_secs(10);

/// How soon an object is run again that could not even be told that its run panicked.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// Waits for a slot, then runs the object if there is anything to do, and says when its next turn is.
pub async fn take<P: Ports>(object: &PolicyImage, context: &Context<P>, config_maps: &ConfigMaps) -> Action {
    let waiting = context.metrics.wait();
    // The slots are closed when the program stops.
    let Ok(_slot) = context.slots.acquire().await else {
        return Action::await_change();
    };
    drop(waiting);
    // Boxed, so that a thousand objects that wait do not each hold the space of a run.
    let run = AssertUnwindSafe(Box::pin(run(object, context, config_maps))).catch_unwind();
    run.await.unwrap_or_else(|_| {
        // All objects share one task: without this second net, a panic while one is reported on would end them all.
        context.metrics.panicked();
        Action::requeue(AFTER_PANIC)
    })
}

/// One run and everything around it: the deadline, a net for panics, status, event, metrics, the next run.
async fn run<P: Ports>(object: &PolicyImage, context: &Context<P>, config_maps: &ConfigMaps) -> Action {
    if object.metadata.deletion_timestamp.is_some() || !context.may_write() {
        return Action::await_change();
    }
    let (namespace, name, uid) = (
        object.namespace().unwrap_or_default(),
        object.name_any(),
        object.uid().unwrap_or_default(),
    );
    let mut state = context.memory.get(&namespace, &name, &uid);
    let target = validate::target(object).ok();
    let watched = target
        .as_ref()
        .and_then(|target| watched(config_maps, &target.namespace, &target.name));
    let request = Request {
        generation: object.metadata.generation,
        requested_at: status::requested_at(object),
    };
    if let Some(left) = state.idle(&request, target.as_ref(), watched.as_ref(), Instant::now()) {
        return Action::requeue(left);
    }
    let measured = context.metrics.run();
    let interval = validate::interval(&object.spec).unwrap_or(DEFAULT_INTERVAL);
    let outcome = if object.spec.suspend {
        Outcome::Suspended
    } else {
        let outcome = bounded(object, context, watched.as_ref(), &mut state, interval).await;
        held(object, context, watched.as_ref(), &mut state, outcome).await
    };
    log(&namespace, &name, &outcome);
    let written = report(object, context, &outcome).await;
    count(measured, &outcome);
    state.failures = if matches!(outcome, Outcome::Failure(_)) || !written {
        state.failures.saturating_add(1)
    } else {
        0
    };
    let (recheck, chance) = (state.recheck.is_some(), fastrand::f64());
    let planned = schedule::delay(&outcome, interval, state.failures, recheck, chance);
    let next = if written {
        planned
    } else {
        Some(schedule::retry(interval, state.failures, chance))
    };
    // Without a written status the next run must not take this one for done.
    state.answered = next.filter(|_| written).map(|next| (request, Instant::now() + next));
    context.memory.keep(&namespace, &name, state);
    next.map_or_else(Action::await_change, Action::requeue)
}

/// How old the answer about the tag may be: what failed, and what somebody asks for, is asked anew; what only the clock
/// asks for may be shared with others.
fn not_before(object: &PolicyImage, state: &ObjectState, interval: Duration) -> Instant {
    let age = if state.failures > 0 || changed(object) {
        FAILURE_SHARED_FOR
    } else {
        tolerated_age(interval)
    };
    let oldest = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
    state.recheck.map_or(oldest, |recheck| oldest.max(recheck))
}

/// Steps 1 to 7 within the deadline. A panic ends this run and nothing else.
async fn bounded<P: Ports>(
    object: &PolicyImage,
    context: &Context<P>,
    watched: Option<&ObjectMeta>,
    state: &mut ObjectState,
    interval: Duration,
) -> Outcome {
    let not_before = not_before(object, state, interval);
    let deadline = validate::timeout(&object.spec).unwrap_or(validate::DEFAULT_TIMEOUT);
    let run = async {
        let Context {
            client,
            objects,
            pipeline,
            rules,
            ..
        } = context;
        let started = Instant::now();
        let planned = reconcile::plan(object, objects, *rules).await;
        if let Ok(plan) = &planned {
            state.forget_what_is_not_admitted_by(&plan.trust);
        }
        let verified_plan = match planned {
            Ok(plan) => reconcile::resolve_and_verify(plan, pipeline, not_before).await,
            Err(error) => Err(error),
        };
        // An answer from before this run may miss the push or the signature that made somebody ask for the run.
        let older = verified_plan.as_ref().map_or(true, |verified_plan| {
            !verified_plan.plan.source.is_pinned() && verified_plan.asked < started
        });
        state.recheck = (older && changed(object)).then_some(started);
        // Asking the registry may have taken longer than the Lease.
        if !context.may_write() {
            return Err(StepError::LeadershipLost.into());
        }
        reconcile::apply(object, client, pipeline, &verified_plan?, state, watched).await
    };
    let run = AssertUnwindSafe(run).catch_unwind();
    match tokio::time::timeout(deadline, run).await {
        Ok(Ok(Ok(success))) => Outcome::Success(Box::<Success>::new(success)),
        Ok(Ok(Err(failure))) => Outcome::Failure(failure),
        Ok(Err(_)) => {
            context.metrics.panicked();
            Outcome::Failure(Failure::from(StepError::Panic))
        }
        Err(_) => Outcome::Failure(Failure::from(StepError::DeadlineExceeded(deadline))),
    }
}

/// A run that failed may not have got as far as the target.
async fn held<P>(
    object: &PolicyImage,
    context: &Context<P>,
    watched: Option<&ObjectMeta>,
    state: &mut ObjectState,
    outcome: Outcome,
) -> Outcome {
    let Outcome::Failure(failure) = outcome else {
        return outcome;
    };
    if !context.may_write() {
        return Outcome::Failure(failure);
    }
    let held = hold::hold(&context.client, object, &failure.error, state, watched);
    let lost = tokio::time::timeout(HOLD, held).await.is_ok_and(|held| !held);
    Outcome::Failure(Failure { lost, ..failure })
}

/// Step 8. False where the status could not be written and must be tried again.
async fn report<P>(object: &PolicyImage, context: &Context<P>, outcome: &Outcome) -> bool {
    if !context.may_write() {
        return true;
    }
    let new = status::next(object, outcome, Timestamp::now());
    match report::patch_status(&context.client, object, &new).await {
        Ok(_) => {
            if let Some(event) = report::event(object, &new) {
                report::publish(&context.client, &context.reporter, object, &event).await;
            }
            true
        }
        // Deleted meanwhile: there is nobody left to tell.
        Err(kube::Error::Api(status)) if status.code == 404 => true,
        // Changed meanwhile: the run that follows speaks about the newer version.
        Err(kube::Error::Api(status)) if status.code == 409 => false,
        Err(error) => {
            tracing::warn!(
                error = describe(&error),
                object = object.name_any(),
                "the status was not written"
            );
            false
        }
    }
}

fn log(namespace: &str, name: &str, outcome: &Outcome) {
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

fn count(measured: Run, outcome: &Outcome) {
    match outcome {
        Outcome::Suspended => measured.ended(Reason::Suspended, metrics::Outcome::Success),
        Outcome::Success(_) => measured.ended(Reason::Succeeded, metrics::Outcome::Success),
        Outcome::Failure(failure) => measured.ended(failure.error.reason(), failure.error.disposition().into()),
    }
}
