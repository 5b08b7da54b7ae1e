//! The steps of one run, in the order of the table in the crate's documentation.
//!
//! Steps return errors and never touch conditions; `status` alone knows conditions, and only writes them.

pub mod context;
mod deliver;
pub mod dereference;
pub mod outcome;
pub mod restore;
pub mod validate;

use std::time::Instant;

use super::api::spec::PolicyImage;
use super::delivery::config_map::ConfigMapStates;
use super::identity::ObjectKey;
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;
use crate::pipeline::single_flight::Freshness;
use context::RunContext;
use dereference::ObjectReader;
use outcome::{Failure, StepError, Success, VerifiedPlan};
use validate::{OperatorOptions, Plan, ValidateError};

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

/// Forgets the last good bundles that the current trust policy does not admit. A key that is absent or broken admits nothing;
/// a temporary error changes nothing.
pub fn retain_admitted(plan: &Result<Plan, StepError>, config_maps: &mut ConfigMapStates) {
    match plan {
        Ok(plan) => config_maps.retain_last_good_if_admitted_by(&plan.trust),
        Err(error) if error.is_temporary() => {}
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
    // A failed verification is shared only briefly.
    let freshness = freshness.or_recent();
    let verified = pipeline.verify(&plan.source, &revision, &plan.trust, freshness).await?;
    Ok(VerifiedPlan {
        plan,
        revision,
        verified,
        freshness,
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
