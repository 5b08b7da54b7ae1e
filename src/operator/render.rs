//! `render`: the steps of a run without a cluster, for GitOps repositories, CI and trying a policy out.

pub mod manifests;

use std::io::Write;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::api::spec::PolicyImage;
use super::identity::NamespacedName;
use super::status;
use super::steps::outcome::{Failure, Outcome, StepError, Success, VerifiedPlan};
use super::steps::validate::{self, OperatorOptions};
use super::steps::{plan, resolve_and_verify};
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;
use crate::pipeline::reason::{Classify as _, Disposition, Reason};
use crate::pipeline::single_flight::Freshness;
use manifests::KubernetesManifests;

/// The result over all objects; the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every policy can be delivered.
    Delivered,
    /// At least one could not be looked up.
    Unknown,
    /// At least one is refused.
    Refused,
}

impl Verdict {
    /// What a failure means to `render`. The operator waits for what others may push, sign or create; here its absence
    /// is final, and the policy is refused.
    fn of(reason: Reason, disposition: Disposition) -> Self {
        match reason {
            Reason::ImageNotFound
            | Reason::NoMatchingTag
            | Reason::ReferenceNotFound
            | Reason::Unsigned
            | Reason::SignatureMismatch => Self::Refused,
            _ if disposition == Disposition::Stalled => Self::Refused,
            _ => Self::Unknown,
        }
    }

    /// The exit status.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::Refused => 1,
            Self::Unknown => 3,
        }
    }
}

/// Why nothing could be printed.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The output is gone.
    #[error("the output cannot be written")]
    Write(#[from] std::io::Error),
    /// An object cannot be written as YAML: a fault of this program.
    #[error("an object cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
    /// An object cannot be written as JSON: a fault of this program.
    #[error("an object cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Renders every PolicyImage of `manifests` to `output`, and reports on `problems` what went wrong.
///
/// # Errors
/// [`RenderError`] if writing fails. A policy that is refused is a [`Verdict`], not an error.
pub async fn render<P: Ports>(
    manifests: &KubernetesManifests,
    pipeline: &Pipeline<P>,
    options: OperatorOptions,
    with_status: bool,
    output: &mut (dyn Write + Send),
    problems: &mut (dyn Write + Send),
) -> Result<Verdict, RenderError> {
    let mut verdict = Verdict::Delivered;
    for object in manifests.policy_images() {
        let (outcome, config_maps) = match Box::pin(render_within_deadline(object, manifests, pipeline, options)).await
        {
            Ok((success, config_maps)) => (Outcome::Success(Box::new(success)), config_maps),
            Err(failure) => {
                let (reason, error) = (failure.error.reason(), failure.error.explain());
                writeln!(problems, "{}: {reason}: {error}", describe(object))?;
                verdict = verdict.max(Verdict::of(reason, failure.error.disposition()));
                (Outcome::Failure(failure), Vec::new())
            }
        };
        for config_map in config_maps {
            write!(output, "---\n{}", serde_saphyr::to_string(&config_map)?)?;
        }
        if with_status {
            let shown = with_new_status(object, &outcome)?;
            write!(output, "---\n{}", serde_saphyr::to_string(&shown)?)?;
        }
    }
    Ok(verdict)
}

fn describe(object: &PolicyImage) -> String {
    match NamespacedName::of(&object.metadata) {
        Ok(NamespacedName { namespace, name }) => format!("PolicyImage '{namespace}/{name}'"),
        Err(missing) => format!("a PolicyImage that cannot be named ({missing})"),
    }
}

/// Renders one object within the deadline of its spec.
async fn render_within_deadline<P: Ports>(
    object: &PolicyImage,
    manifests: &KubernetesManifests,
    pipeline: &Pipeline<P>,
    options: OperatorOptions,
) -> Result<(Success, Vec<Value>), Failure> {
    let deadline = validate::deadline(&object.spec, options);
    tokio::time::timeout(deadline, render_one(object, manifests, pipeline, options))
        .await
        .unwrap_or_else(|_| Err(StepError::DeadlineExceeded(deadline).into()))
}

async fn render_one<P: Ports>(
    object: &PolicyImage,
    manifests: &KubernetesManifests,
    pipeline: &Pipeline<P>,
    options: OperatorOptions,
) -> Result<(Success, Vec<Value>), Failure> {
    let plan = plan(object, manifests, options).await?;
    let verified_plan = resolve_and_verify(&plan, pipeline, Freshness::recent()).await?;
    let failed = |error: StepError| Failure::after(&verified_plan, error);
    let VerifiedPlan {
        plan,
        revision,
        verified,
        ..
    } = &verified_plan;
    let acquired = pipeline
        .acquire(&plan.source, verified, plan.largest_bundle(), Freshness::recent())
        .await;
    let acquired = acquired.map_err(|error| failed(error.into()))?;
    let config_maps = plan.deliveries.iter().map(|delivery| {
        let manifest = delivery.manifest(revision, &acquired.bundle);
        manifest.map(without_owner).map_err(|error| failed(error.into()))
    });
    let config_maps = config_maps.collect::<Result<_, _>>()?;
    Ok((Success::new(&verified_plan, Some(acquired.summary())), config_maps))
}

/// Outside of a cluster there is no object to own the ConfigMap, and no operator that manages it.
fn without_owner(mut config_map: Value) -> Value {
    if let Some(metadata) = config_map.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("ownerReferences");
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(super::api::MANAGED_BY_LABEL);
        }
        if metadata
            .get("labels")
            .and_then(Value::as_object)
            .is_some_and(serde_json::Map::is_empty)
        {
            metadata.remove("labels");
        }
    }
    config_map
}

fn with_new_status(object: &PolicyImage, outcome: &Outcome) -> Result<Value, serde_json::Error> {
    let status = status::next(object, outcome, Timestamp::now());
    let mut shown = serde_json::to_value(PolicyImage {
        status: Some(status),
        ..object.clone()
    })?;
    if let Some(metadata) = shown.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("uid");
    }
    Ok(shown)
}
