//! One run over one object: a story of eight steps, each in a file of its own.
//!
//! ```text
//! 1 dereference  kube       PolicyImage                -> References
//! 2 validate     pure       PolicyImage + References   -> Plan         the last place where the spec can be wrong
//! 3 resolve      pipeline   Plan.source                -> Revision     asked once; never the tag again
//! 4 verify       pipeline   Revision + TrustPolicy     -> Verified<Revision>   before one byte of content is fetched
//! 5 observe      kube       Plan.target                -> Observed     what is there, and whether it is ours
//! 6 decide       pure       all of it                  -> Work         often nothing
//! 7 acquire      pipeline   Verified<Revision>         -> Verified<Bundle>     bound by digest, so the proof holds
//!   deliver      kube       Verified<Bundle> + target  -> the ConfigMap
//! 8 status       pure       old status + outcome       -> new status   always runs; one patch, none if unchanged
//! ```
//!
//! Steps return errors and never touch conditions; `status` alone knows conditions and cannot do anything.

pub mod decide;
pub mod deliver;
pub mod dereference;
pub mod hold;
pub mod memory;
pub mod observe;
pub mod outcome;
pub mod schedule;
pub mod status;
pub mod validate;

use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;

use crate::operator::api::spec::PolicyImage;
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;
use decide::Work;
use dereference::ObjectReader;
use hold::LastGood;
use memory::{AppliedConfigMap, ObjectState};
use outcome::{Failure, StepError, Success, VerifiedPlan};
use validate::{OperatorOptions, Plan};

/// Steps 1 and 2: what the object asks for, and by whose word.
///
/// # Errors
/// The error of the step that failed.
pub async fn plan<O: ObjectReader>(
    object: &PolicyImage,
    objects: &O,
    rules: OperatorOptions,
) -> Result<Plan, StepError> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let references = dereference::dereference(objects, namespace, &object.spec).await?;
    Ok(validate::validate(object, &references, rules)?)
}

/// Steps 3 and 4, which need no cluster: `render` does the same.
///
/// # Errors
/// The error of the step that failed.
pub async fn resolve_and_verify<P: Ports>(
    plan: Plan,
    pipeline: &Pipeline<P>,
    not_before: Instant,
) -> Result<VerifiedPlan, StepError> {
    let answer = pipeline.resolve(&plan.source, not_before).await;
    let revision = answer.outcome?;
    let verified = pipeline.verify(&plan.source, &revision, &plan.trust).await?;
    Ok(VerifiedPlan {
        plan,
        revision,
        verified,
        asked: answer.started,
    })
}

/// Steps 5 to 7: brings the target to what was verified_plan.
///
/// # Errors
/// The error of the step that failed, with the proof.
pub async fn apply<P: Ports>(
    object: &PolicyImage,
    client: &Client,
    pipeline: &Pipeline<P>,
    verified_plan: &VerifiedPlan,
    state: &mut ObjectState,
    watched: Option<&ObjectMeta>,
) -> Result<Success, Failure> {
    let VerifiedPlan {
        plan,
        revision,
        verified,
        ..
    } = verified_plan;
    let failed = |error: StepError| Failure::after(verified.verification(), error);
    let (status, generation) = (object.status.as_ref(), object.metadata.generation);
    let observed = observe::observe(client, &plan.target, state.delivered.as_ref(), watched).await;
    let observed = observed.map_err(|error| failed(error.into()))?;
    let (existing, bundle) = match decide::decide(plan, verified, generation, status, &observed) {
        Work::Nothing => (observed.into_existing(), None),
        Work::Deliver => {
            let acquired = pipeline
                .acquire(&plan.source, verified, deliver::MAX_CONFIG_MAP_BYTES)
                .await
                .map_err(|error| failed(error.into()))?;
            let previous_config_maps = state.previous_config_maps(status);
            let delivered = deliver::deliver(
                client,
                &plan.target,
                revision,
                &acquired.bundle,
                &observed,
                &previous_config_maps,
            )
            .await;
            let existing = delivered.map_err(|error| failed(error.into()))?;
            state.last_good = Some(LastGood::of(verified_plan, &acquired));
            (Some(existing), Some(acquired.summary()))
        }
    };
    state.delivered = existing.map(|existing| AppliedConfigMap::at(&plan.target, existing));
    Ok(Success::new(verified_plan, bundle))
}
