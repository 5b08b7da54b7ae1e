//! `PolicyImage` objects as a user writes and reads them: plain manifests, without the operator's own types.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::Request;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use crate::wait;

/// One condition of an object's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The word for programs.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
}

/// The kind `PolicyImage`, `opcr.io/v1alpha1`.
#[must_use]
pub fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("opcr.io", "v1alpha1", "PolicyImage"),
        "policyimages",
    )
}

/// The `PolicyImage` objects of a namespace.
#[must_use]
pub fn api(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource())
}

/// A manifest for `image` in a registry without TLS; with a public key (PEM), only signed images are delivered.
///
/// # Errors
/// Never in practice.
pub fn policy_image(namespace: &str, name: &str, image: &str, public_key: Option<&str>) -> Result<DynamicObject> {
    let mut spec = json!({ "image": image, "insecure": true });
    if let Some(key) = public_key {
        spec["verify"] = json!({ "authorities": [{ "name": "release", "key": { "data": key } }] });
    }
    Ok(serde_json::from_value(json!({
        "apiVersion": "opcr.io/v1alpha1",
        "kind": "PolicyImage",
        "metadata": { "namespace": namespace, "name": name },
        "spec": spec,
    }))?)
}

/// The condition `kind` of an object, if its status has it.
#[must_use]
pub fn condition(object: &DynamicObject, kind: &str) -> Option<Condition> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| condition[field].as_str().map(str::to_owned);
    Some(Condition {
        status: text("status")?,
        reason: text("reason")?,
        message: text("message")?,
    })
}

/// Gives all managed fields of the object at `path` a time that Kubernetes takes and the types of its clients in Rust do
/// not, and returns the object as it is kept. The API server keeps it where something else changes in the same update.
///
/// # Errors
/// When the API server refuses, or someone else changes the object again and again.
pub async fn make_unreadable(client: &Client, path: &str) -> Result<Value> {
    const YEAR: &str = "9999-12-31T23:59:59Z";
    let attempt = || async {
        let mut object: Value = client.request(Request::get(path).body(Vec::new())?).await?;
        let entries = object["metadata"]["managedFields"].as_array_mut();
        for entry in entries.into_iter().flatten() {
            entry["time"] = json!(YEAR);
        }
        object["metadata"]["annotations"]["acme.example.com/changed"] = json!(YEAR);
        let put = Request::put(format!("{path}?fieldManager=tenant")).header("content-type", "application/json");
        let kept: Value = client.request(put.body(object.to_string().into_bytes())?).await?;
        let entries = kept["metadata"]["managedFields"].as_array().context("managed fields")?;
        anyhow::ensure!(entries.iter().any(|entry| entry["time"] == YEAR), "not kept: {kept}");
        Ok(Some(kept))
    };
    wait::until(
        "an unreadable object",
        Duration::from_mins(1),
        Duration::from_millis(50),
        attempt,
    )
    .await
}

/// Waits until the condition `kind` of the object `name` is as `expected` wants it, and returns the object.
///
/// # Errors
/// When that is not within `limit`: with the status as it then is.
pub async fn until(
    api: &Api<DynamicObject>,
    name: &str,
    kind: &str,
    expected: impl Fn(&Condition) -> bool,
    limit: Duration,
) -> Result<DynamicObject> {
    let what = format!("condition {kind:?} of policyimage {name:?}");
    wait::until(&what, limit, Duration::from_millis(50), || async {
        let object = api.get(name).await?;
        if condition(&object, kind).is_some_and(|condition| expected(&condition)) {
            return Ok(Some(object));
        }
        let status = object.data.get("status").map(Value::to_string);
        Err(anyhow::anyhow!("status is {}", status.context("not there")?))
    })
    .await
}
