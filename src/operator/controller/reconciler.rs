//! The story of one run: decide, carry out the steps within the deadline, restore after a failure, write the status, and
//! schedule the next run.

use std::time::{Duration, Instant};

use kube::runtime::reflector::Store;

use super::context::Context;
use super::deadline::Deadline;
use super::next_state::{EndedRun, next_state};
use super::trigger::{self, Decision, Trigger};
use crate::operator::api::ReconcileRequest;
use crate::operator::api::spec::PolicyImage;
use crate::operator::delivery::{Cluster, ConfigMaps, is_intact};
use crate::operator::identity::ObjectKey;
use crate::operator::slot::Slot;
use crate::operator::steps::context::RunContext;
use crate::operator::steps::outcome::{Failure, LastGoodState, Outcome};
use crate::operator::steps::{self, restore, validate};
use crate::pipeline::ports::Ports;
use crate::pipeline::single_flight::Freshness;

/// Runs the object if there is anything to do, and returns how soon it is due again; none where only a change wakes it.
pub(crate) async fn reconcile<P: Ports>(
    object: &PolicyImage,
    context: &Context<P>,
    policy_images: &Store<PolicyImage>,
    config_maps: &ConfigMaps,
    mut slot: Slot,
) -> Option<Duration> {
    let key = &ObjectKey::of(&object.metadata).ok()?;
    let gate = &context.gate;
    gate.client().ok()?;
    let cluster = Cluster { gate, config_maps };
    let (mut state, started) = (context.states.get(key), Instant::now());
    let is_intact = is_intact(cluster, key.namespace(), &state.config_maps);
    let trigger = match trigger::decide(object, &state, is_intact, started) {
        Decision::Skip => return None,
        Decision::Wait(delay) => return Some(delay),
        Decision::Suspend => None,
        Decision::Run(trigger) => Some(trigger),
    };
    let (interval, measured) = (validate::interval_or_default(&object.spec), context.metrics.run());
    let outcome = match trigger {
        None => Outcome::Suspended,
        Some(trigger) => {
            let freshness = trigger.freshness(&state, interval, started);
            let mut run = RunContext {
                object,
                key,
                policy_images,
                cluster,
                pipeline: &context.pipeline,
                slot: &mut slot,
                config_maps: &mut state.config_maps,
            };
            run_steps(context, trigger, freshness, &mut run).await
        }
    };
    let written = context.report(object, key, &state, &outcome, measured).await;
    let run = EndedRun {
        trigger,
        request: ReconcileRequest::of(object),
        started,
        ended: Instant::now(),
        outcome: &outcome,
        written,
        interval,
        jitter: fastrand::f64(),
    };
    let (state, delay) = next_state(state, run);
    context.states.put(key, state);
    delay
}

/// The steps within their deadline and, where they fail, the restoration of the last good bundle.
async fn run_steps<P: Ports>(
    context: &Context<P>,
    trigger: Trigger,
    freshness: Freshness,
    run: &mut RunContext<'_, P>,
) -> Outcome {
    let deadline = Deadline::of(validate::deadline(&run.object.spec, context.options), &context.metrics);
    let objects = context.objects.as_of(freshness.or_recent());
    let planned = deadline.guard(steps::plan(run.object, &objects, context.options)).await;
    steps::retain_admitted(&planned, run.config_maps);
    let (plan, ended) = match planned {
        Ok(plan) => {
            let carried_out = async {
                if trigger == Trigger::ConfigMapChanged {
                    run.restore_changed().await;
                }
                steps::carry_out(&plan, freshness, run).await
            };
            let ended = deadline.guard(carried_out).await;
            (Some(plan), ended)
        }
        Err(error) => (None, Err(Failure::from(error))),
    };
    // The deadline may have passed while the run waited without its slot, and what follows is work.
    run.slot.resume().await;
    match ended {
        Ok(success) => Outcome::Success(Box::new(success)),
        Err(failure) => {
            let restored = restore::restore_last_good(plan.as_ref(), &failure.error, run);
            let last_good = deadline.catch_panic(restored).await.unwrap_or(LastGoodState::Unknown);
            Outcome::Failure(Failure { last_good, ..failure })
        }
    }
}
