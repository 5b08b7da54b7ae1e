//! The steps of one run, in the order of the table in the crate's documentation, each in a file of its own.
//!
//! Steps return errors and never touch conditions; `status` alone knows conditions, and only writes them.

pub mod deliver;
pub mod dereference;
pub mod outcome;
pub mod restore;
pub mod validate;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::api::spec::PolicyImage;
use super::delivery::config_map::ConfigMapState;
use super::identity::ObjectKey;
use super::slot::YieldingPipeline;
use super::write_gate::WriteGate;
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;
use crate::pipeline::single_flight::Freshness;
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

/// The revision that the plan resolves to, verified. Needs no cluster: `render` does the same.
///
/// # Errors
/// The error of the step that failed.
pub async fn resolve_and_verify<P: Ports>(
    plan: Plan,
    pipeline: &Pipeline<P>,
    freshness: Freshness,
) -> Result<VerifiedPlan, StepError> {
    let answer = pipeline.resolve(&plan.source, freshness).await;
    let revision = answer.outcome?;
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
        resolved_at: answer.started,
    })
}

/// Brings every delivery up to the verified revision.
///
/// # Errors
/// The error of the step that failed, with the verification.
pub async fn apply<P: Ports>(
    object: &PolicyImage,
    gate: &WriteGate,
    pipeline: &mut YieldingPipeline<'_, P>,
    plan: &VerifiedPlan,
    state: &mut ConfigMapState,
    watched: Option<&ObjectMeta>,
) -> Result<Success, Failure> {
    match deliver::deliver(gate, pipeline, plan, object.status.as_ref(), state, watched).await {
        Ok(bundle) => Ok(Success::new(plan, bundle)),
        Err(error) => Err(Failure::after(plan.verified.verification(), error)),
    }
}
