//! `render`: the steps of a run without a cluster, for GitOps repositories, CI and trying a policy out.

pub mod manifests;

use std::io::Write;
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::Value;

use super::api::spec::PolicyImage;
use super::reconcile::outcome::{Failure, Outcome, StepError, Success};
use super::reconcile::validate::{self, OperatorOptions};
use super::reconcile::{deliver, plan, resolve_and_verify, status};
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;
use crate::pipeline::reason::{Classify as _, Disposition, Reason};
use manifests::Manifests;

/// How it went over all objects; the worst counts.
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
    /// What a failure means to whoever renders. The operator waits for what others may push, sign or create; here that is
    /// an answer, and the answer is no.
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

/// Renders every PolicyImage of `manifests` to `output`, and says on `problems` what went wrong.
///
/// # Errors
/// [`RenderError`] where writing fails. A policy that is refused is a [`Verdict`], not an error.
pub async fn render<P: Ports>(
    manifests: &Manifests,
    pipeline: &Pipeline<P>,
    rules: OperatorOptions,
    with_status: bool,
    output: &mut (dyn Write + Send),
    problems: &mut (dyn Write + Send),
) -> Result<Verdict, RenderError> {
    let mut verdict = Verdict::Delivered;
    for object in manifests.policy_images() {
        let (outcome, config_map) = match Box::pin(bounded(object, manifests, pipeline, rules)).await {
            Ok((success, config_map)) => (Outcome::Success(Box::new(success)), Some(config_map)),
            Err(failure) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                let (reason, error) = (failure.error.reason(), failure.error.explain());
                writeln!(problems, "PolicyImage '{namespace}/{name}': {reason}: {error}")?;
                verdict = verdict.max(Verdict::of(reason, failure.error.disposition()));
                (Outcome::Failure(failure), None)
            }
        };
        if let Some(config_map) = config_map {
            write!(output, "---\n{}", serde_saphyr::to_string(&config_map)?)?;
        }
        if with_status {
            let shown = with_new_status(object, &outcome)?;
            write!(output, "---\n{}", serde_saphyr::to_string(&shown)?)?;
        }
    }
    Ok(verdict)
}

async fn bounded<P: Ports>(
    object: &PolicyImage,
    manifests: &Manifests,
    pipeline: &Pipeline<P>,
    rules: OperatorOptions,
) -> Result<(Success, Value), Failure> {
    let deadline = validate::timeout(&object.spec).unwrap_or(validate::DEFAULT_TIMEOUT);
    let run = async {
        let plan = plan(object, manifests, rules).await?;
        let verified_plan = resolve_and_verify(plan, pipeline, Instant::now()).await?;
        let failed = |error: StepError| Failure::after(verified_plan.verified.verification(), error);
        let acquired = pipeline
            .acquire(
                &verified_plan.plan.source,
                &verified_plan.verified,
                deliver::MAX_CONFIG_MAP_BYTES,
            )
            .await;
        let acquired = acquired.map_err(|error| failed(error.into()))?;
        let config_map = deliver::config_map(&verified_plan.plan.target, &verified_plan.revision, &acquired.bundle);
        let config_map = config_map.map_err(|error| failed(error.into()))?;
        Ok((
            Success::new(&verified_plan, Some(acquired.summary())),
            without_owner(config_map),
        ))
    };
    tokio::time::timeout(deadline, run)
        .await
        .unwrap_or_else(|_| Err(StepError::DeadlineExceeded(deadline).into()))
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
