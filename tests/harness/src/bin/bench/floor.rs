//! The least that any controller can do: one server-side apply and one status patch for each object.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::watcher;
use kube::{Client, Config, CustomResource, Resource as _, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(CustomResource, Serialize, Deserialize, Debug, Clone)]
#[kube(
    group = "opcr.io",
    version = "v1alpha1",
    kind = "PolicyImage",
    namespaced,
    schema = "disabled"
)]
struct PolicyImageSpec {
    image: String,
}

/// What the operator's default is, too.
const CONCURRENCY: u16 = 10;

/// Runs until it is killed.
pub(crate) async fn run(kubeconfig: &Path) -> Result<()> {
    policy_operator_harness::init();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let objects: Api<PolicyImage> = Api::all(client.clone());
    Controller::new(objects, watcher::Config::default())
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_secs(1)),
            Arc::new(client),
        )
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    // Only an error ends the stream: the floor must not work around anything.
    Ok(())
}

async fn reconcile(object: Arc<PolicyImage>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = object.namespace().unwrap_or_default();
    // Its own status patch comes back as an event.
    if object.managed_fields().iter().all(|entry| entry.subresource.is_none()) {
        let parameters = PatchParams::apply("floor").force();
        let maps: Api<ConfigMap> = Api::namespaced(client.as_ref().clone(), &namespace);
        let map = config_map(&object);
        maps.patch(
            &format!("{}-bundle", object.name_any()),
            &parameters,
            &Patch::Apply(map),
        )
        .await?;
        let objects: Api<PolicyImage> = Api::namespaced(client.as_ref().clone(), &namespace);
        objects
            .patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(ready()))
            .await?;
    }
    Ok(Action::requeue(Duration::from_mins(5)))
}

fn config_map(object: &PolicyImage) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": format!("{}-bundle", object.name_any()), "ownerReferences": [object.controller_owner_ref(&())] },
        // As large as the smallest bundle.
        "binaryData": { "bundle.tar.gz": "H4sI".repeat(80) },
    })
}

fn ready() -> Value {
    let condition = json!({
        "type": "Ready",
        "status": "True",
        "reason": "Succeeded",
        "message": "Everything is as it should be.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({ "status": { "observedGeneration": 1, "conditions": [condition] } })
}
