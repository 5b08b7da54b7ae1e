//! One run from start to end: check leadership and trigger, run the steps within the deadline, restore after a failure,
//! write the status, and schedule the next run.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::context::{ConfigMaps, Context, watched};
use super::state::{EndedRun, ObjectState, next_state};
use super::trigger::{self, Decision, Trigger};
use crate::operator::api::Request;
use crate::operator::api::spec::PolicyImage;
use crate::operator::identity::ObjectKey;
use crate::operator::reconcile::outcome::{Failure, Outcome, StepError, Success};
use crate::operator::reconcile::{self, restore, validate};
use crate::operator::slot::{Slot, YieldingPipeline};
use crate::pipeline::ports::Ports;
use crate::pipeline::reason::Classify as _;

/// The interval of an object whose interval cannot be read.
const DEFAULT_INTERVAL: Duration = Duration::from_mins(5);

/// How long recovering, and then restoring, the last good bundle may take.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the object if there is anything to do, and returns how soon it is due again; none where only a change wakes it.
pub(crate) async fn reconcile<P: Ports>(
    object: &PolicyImage,
    context: &Context<P>,
    config_maps: &ConfigMaps,
    mut slot: Slot,
) -> Option<Duration> {
    let key = &ObjectKey::of(&object.metadata).ok()?;
    if object.metadata.deletion_timestamp.is_some() || context.gate.client().is_err() {
        return None;
    }
    let mut state = context.states.get(key);
    let applied = state.config_map.applied.as_ref();
    let config_map = applied.and_then(|applied| watched(config_maps, key.namespace(), &applied.name));
    let config_map = config_map.as_ref();
    let started = Instant::now();
    let trigger = match trigger::decide(object, &state, config_map, started) {
        Decision::Run(trigger) => trigger,
        Decision::Wait(delay) => return Some(delay),
    };
    let measured = context.metrics.run();
    let outcome = if object.spec.suspend {
        Outcome::Suspended
    } else {
        let outcome = with_deadline(object, context, &mut state, trigger, config_map, &mut slot).await;
        restore_after_failure(object, context, &mut state, config_map, outcome, &mut slot).await
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
    delay
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
    slot: &mut Slot,
) -> Outcome {
    let deadline = validate::deadline(&object.spec, context.options);
    // Boxed, so that the caller's future stays small.
    let run = Box::pin(run_once(object, context, state, trigger, config_map, slot));
    let ended = tokio::time::timeout(deadline, AssertUnwindSafe(run).catch_unwind()).await;
    // The deadline may have passed while the run waited without its slot, and what follows is work.
    slot.resume().await;
    match ended {
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
    slot: &mut Slot,
) -> Result<Success, Failure> {
    let started = Instant::now();
    if trigger == Trigger::Requested {
        // The user may have repaired the cause, so earlier failures do not count.
        state.failures = 0;
    }
    let freshness = trigger.freshness(state, interval(object), started);
    // Out of reach until it is known to be admitted: a key that is absent or broken admits nothing.
    let last_good = state.config_map.last_good.take();
    let plan = reconcile::plan(object, &context.objects, context.options).await;
    if plan.as_ref().map_or_else(StepError::may_pass, |_| true) {
        state.config_map.last_good = last_good;
    }
    if let Ok(plan) = &plan {
        state.config_map.forget_what_is_not_admitted_by(&plan.trust);
        if trigger == Trigger::ConfigMapChanged {
            restore::restore_changed(&context.gate, object, &mut state.config_map, config_map).await;
        }
    }
    let verified = match plan {
        Ok(plan) => {
            let answers = Box::pin(reconcile::resolve_and_verify(plan, &context.pipeline, freshness));
            slot.release_during(answers).await
        }
        Err(error) => Err(error),
    };
    state.config_map.note_verification(|revision| match &verified {
        Ok(verified) => (verified.revision == *revision).then_some(true),
        Err(error) => error.refuses(revision).then_some(false),
    });
    // A result from before this run may miss the push or the signature that the run was requested for.
    let may_be_outdated = verified.as_ref().map_or(true, |verified| {
        !verified.plan.source.is_pinned() && verified.resolved_at < started
    });
    state.revalidate_after = (may_be_outdated && trigger.is_awaited()).then_some(started);
    let (gate, state) = (&context.gate, &mut state.config_map);
    let mut pipeline = YieldingPipeline::new(&context.pipeline, slot);
    reconcile::apply(object, gate, &mut pipeline, &verified?, state, config_map).await
}

/// Restores the last good bundle: a run that failed may not have reached the delivery.
async fn restore_after_failure<P: Ports>(
    object: &PolicyImage,
    context: &Context<P>,
    state: &mut ObjectState,
    config_map: Option<&ObjectMeta>,
    outcome: Outcome,
    slot: &mut Slot,
) -> Outcome {
    let Outcome::Failure(failure) = outcome else {
        return outcome;
    };
    let state = &mut state.config_map;
    if state.last_good.is_none() {
        let Context {
            objects,
            options,
            pipeline,
            ..
        } = context;
        let recovered = restore::recover(object, state.delivered, objects, *options, pipeline, slot);
        state.last_good = tokio::time::timeout(RESTORE_TIMEOUT, recovered)
            .await
            .unwrap_or_default();
        slot.resume().await;
    }
    let missing = restore::last_good_missing(&context.gate, object, &failure.error, state, config_map);
    let last_good_missing = tokio::time::timeout(RESTORE_TIMEOUT, missing).await.unwrap_or_default();
    Outcome::Failure(Failure {
        last_good_missing,
        ..failure
    })
}

fn log(key: &ObjectKey, outcome: &Outcome) {
    let (namespace, name) = (key.namespace(), key.name());
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
