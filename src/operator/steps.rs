//! The steps of one run, in the order of the table in the crate's documentation.
//!
//! Steps return errors and never touch conditions; `status` alone knows conditions, and only writes them.

mod deliver;
pub mod dereference;
pub mod outcome;
pub mod restore;
pub mod validate;

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::api::spec::PolicyImage;
use super::delivery::config_map::ConfigMapStates;
use super::delivery::{Cluster, is_intact};
use super::identity::ObjectKey;
use super::slot::Slot;
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;
use crate::pipeline::single_flight::Freshness;
use dereference::ObjectReader;
use outcome::{Failure, StepError, Success, VerifiedPlan};
use validate::{OperatorOptions, Plan, ValidateError};

/// How soon a run that waits looks for ConfigMaps that were changed, and how seldom it does after restorations.
const RESTORATION_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the steps of one run work with.
pub struct RunContext<'a, P> {
    /// The object, as its watch shows it.
    pub object: &'a PolicyImage,
    /// The same object, for all time.
    pub key: &'a ObjectKey,
    /// The cluster.
    pub cluster: Cluster<'a>,
    /// The use cases.
    pub pipeline: &'a Pipeline<P>,
    /// The right to work.
    pub slot: &'a mut Slot,
    /// What is known of the ConfigMaps. Changed at once where something is found or written, because the deadline can
    /// end a run anywhere.
    pub config_maps: &'a mut ConfigMapStates,
}

impl<'a, P: Ports> RunContext<'a, P> {
    /// Waits for what `work` does with the pipeline, without the slot. ConfigMaps that another client changes meanwhile
    /// are restored: how long the wait takes is up to a registry.
    ///
    /// Whoever changes one again and again has it restored less and less often.
    pub async fn wait_for<F: Future>(&mut self, work: impl FnOnce(&'a Pipeline<P>) -> F) -> F::Output {
        // Boxed, so that the caller's future stays small.
        let mut work = Box::pin(work(self.pipeline));
        let (mut pause, longest) = RESTORATION_PAUSE;
        loop {
            let changed = until_changed(self.cluster, self.key, self.config_maps, pause);
            let wait = async {
                tokio::select! {
                    output = &mut work => Some(output),
                    () = changed => None,
                }
            };
            if let Some(output) = self.slot.release_during(wait).await {
                return output;
            }
            restore::restore_changed(self).await;
            pause = longest.min(pause * 2);
        }
    }
}

/// Waits for the watch to show one of the ConfigMaps not as we left it.
async fn until_changed(cluster: Cluster<'_>, key: &ObjectKey, config_maps: &ConfigMapStates, pause: Duration) {
    sleep(pause).await;
    while is_intact(cluster, key.namespace(), config_maps) {
        sleep(pause).await;
    }
}

/// The plan of the object: dereferences and validates its spec.
///
/// # Errors
/// The error of the step that failed.
pub async fn plan<O: ObjectReader>(
    object: &PolicyImage,
    objects: &O,
    options: OperatorOptions,
) -> Result<Plan, StepError> {
    let key = ObjectKey::of(&object.metadata).map_err(ValidateError::from)?;
    let references = dereference::dereference(objects, key.namespace(), &object.spec).await?;
    Ok(validate::validate(object, &references, options)?)
}

/// Forgets the last good bundles that the policy of now does not admit. A key that is absent or broken admits nothing;
/// an error that may pass says nothing.
pub fn retain_admitted(plan: &Result<Plan, StepError>, config_maps: &mut ConfigMapStates) {
    match plan {
        Ok(plan) => config_maps.retain_last_good_if_admitted_by(&plan.trust),
        Err(error) if error.may_pass() => {}
        Err(_) => config_maps.forget_last_good(),
    }
}

/// The revision that the plan resolves to, verified. Needs no cluster: `render` does the same.
///
/// # Errors
/// The error of the step that failed.
pub async fn resolve_and_verify<'a, P: Ports>(
    plan: &'a Plan,
    pipeline: &Pipeline<P>,
    freshness: Freshness,
) -> Result<VerifiedPlan<'a>, StepError> {
    let resolution = pipeline.resolve(&plan.source, freshness).await;
    let revision = resolution.outcome?;
    // A refusal is never shared for as long as a tag is.
    let freshness = match freshness {
        Freshness::New => Freshness::New,
        Freshness::Since(_) => Freshness::recent(),
    };
    let verified = pipeline.verify(&plan.source, &revision, &plan.trust, freshness).await?;
    Ok(VerifiedPlan {
        plan,
        revision,
        verified,
        // A digest never leads to anything else.
        resolved_at: if plan.source.is_pinned() {
            Instant::now()
        } else {
            resolution.started
        },
    })
}

/// Carries out a plan: resolves, verifies, and delivers wherever the bundle is not yet.
///
/// # Errors
/// The error of the step that failed, and how far the run got.
pub async fn carry_out<P: Ports>(
    plan: &Plan,
    freshness: Freshness,
    run: &mut RunContext<'_, P>,
) -> Result<Success, Failure> {
    let verified = run
        .wait_for(|pipeline| resolve_and_verify(plan, pipeline, freshness))
        .await;
    run.config_maps.note_verification(|revision| match &verified {
        Ok(verified) => (verified.revision == *revision).then_some(true),
        Err(error) => error.refuses(revision).then_some(false),
    });
    let verified = verified?;
    match deliver::deliver(&verified, run).await {
        Ok(bundle) => Ok(Success::new(&verified, bundle)),
        Err(error) => Err(Failure::after(&verified, error)),
    }
}
