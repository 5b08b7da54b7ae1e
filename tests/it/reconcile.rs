//! The operator's own binary, with the rights of `config/`, against a real control plane and real registries.
//!
//! Each test has a namespace and an operator that watches nothing else, so tests do not see each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use policy_operator_harness::cluster::{AuditEntry, ControlPlane};
use policy_operator_harness::image::{Bundle, PolicyImage, Pushed};
use policy_operator_harness::object::{self, Condition};
use policy_operator_harness::operator::{Operator, OperatorOptions};
use policy_operator_harness::registry::{Endpoint, InProcess, InProcessOptions};
use policy_operator_harness::wait;
use serde_json::{Value, json};

mod access;
mod api_faults;
mod contract;
mod crash_points;
mod deletion;
mod delivery;
mod failures;
mod fairness;
mod kstatus;
mod leadership;
mod memory;
mod metrics;
mod ownership;
mod proxied;
mod registry_faults;
mod requests;
mod responder;
mod restoration;
mod robustness;
mod secret_leaks;
mod service_accounts;
mod tenancy;
mod unreadable_objects;
mod untrusted_status;
mod verification;

/// For what happens at once; generous, because the machine may be busy.
const LIMIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(50);
/// The repository that most tests push to.
const REPOSITORY: &str = "acme/policy";

/// One namespace with an operator and a registry.
struct Arena {
    cluster: &'static ControlPlane,
    client: Client,
    namespace: String,
    registry: InProcess,
    operator: Operator,
}

impl Arena {
    async fn open(name: &str) -> Self {
        Self::with(name, &[]).await
    }

    /// With more flags for the operator.
    async fn with(name: &str, arguments: &[&str]) -> Self {
        Self::configured(name, arguments, false).await
    }

    async fn configured(name: &str, arguments: &[&str], refuse_loopback: bool) -> Self {
        let cluster = ControlPlane::shared().await.expect("control plane");
        let namespace = cluster.namespace(name).await.expect("namespace");
        let operator = start_operator(cluster, &namespace, arguments, refuse_loopback).await;
        Self {
            cluster,
            client: cluster.client().await.expect("client"),
            namespace,
            registry: InProcess::start(InProcessOptions::default()).await.expect("registry"),
            operator,
        }
    }

    fn registry(&self) -> &Endpoint {
        self.registry.endpoint()
    }

    /// Pushes a policy that answers `answer` to [`REPOSITORY`].
    async fn push(&self, tag: &str, answer: &str) -> Pushed {
        push(self.registry(), tag, answer).await
    }

    /// A spec that follows `tag` of [`REPOSITORY`].
    fn spec(&self, tag: &str) -> Value {
        spec(&format!("{}/{REPOSITORY}:{tag}", self.registry.host()))
    }

    fn images(&self) -> Api<DynamicObject> {
        object::api(self.client.clone(), &self.namespace)
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create(&self, name: &str, spec: Value) -> DynamicObject {
        let object = manifest(name, spec);
        self.images()
            .create(&PostParams::default(), &object)
            .await
            .expect("created")
    }

    /// Creates an object and waits until it is ready.
    async fn deliver(&self, name: &str, spec: Value) -> DynamicObject {
        self.create(name, spec).await;
        self.ready(name).await
    }

    /// Merges `patch` into an object.
    async fn patch(&self, name: &str, patch: Value) -> DynamicObject {
        let parameters = PatchParams::default();
        self.images()
            .patch(name, &parameters, &Patch::Merge(patch))
            .await
            .expect("patched")
    }

    /// Points an object at another tag.
    async fn follow(&self, name: &str, tag: &str) {
        let spec = self.spec(tag);
        self.patch(name, json!({ "spec": { "image": spec["image"] } })).await;
    }

    /// Merges `status` into the status of an object, as whoever may write it can.
    async fn patch_status(&self, name: &str, status: Value) {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(status));
        let patched = self.images().patch_status(name, &parameters, &patch).await;
        patched.expect("patched");
    }

    async fn delete_config_map(&self, name: &str) {
        let deleted = self.config_maps().delete(name, &DeleteParams::default()).await;
        deleted.expect("deleted");
    }

    async fn patch_config_map(&self, name: &str, patch: Value) -> ConfigMap {
        let parameters = PatchParams::default();
        self.config_maps()
            .patch(name, &parameters, &Patch::Merge(patch))
            .await
            .expect("patched")
    }

    /// Asks for a run by the annotation and waits for the answer.
    async fn run_again(&self, name: &str) -> DynamicObject {
        let request = format!("request {}", fastrand::u64(..));
        let annotations = json!({ "reconcile.opcr.io/requestedAt": request });
        self.patch(name, json!({ "metadata": { "annotations": annotations } }))
            .await;
        let answered =
            |object: &DynamicObject| object.data.pointer("/status/lastHandledReconcileAt") == Some(&json!(request));
        self.until(name, "answered", answered).await
    }

    async fn get(&self, name: &str) -> DynamicObject {
        self.images().get(name).await.expect("object")
    }

    /// Waits until an object is as `expected` wants it.
    async fn until(&self, name: &str, what: &str, expected: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
        let (api, what) = (self.images(), format!("policyimage {name:?} is {what}"));
        let attempt = || async { Ok(Some(api.get(name).await?).filter(&expected)) };
        match wait::until(&what, LIMIT, PAUSE, attempt).await {
            Ok(object) => object,
            Err(error) => panic!("{error:#}: status is {}", self.get(name).await.data["status"]),
        }
    }

    /// Waits until the newest generation is ready.
    async fn ready(&self, name: &str) -> DynamicObject {
        self.until(name, "ready", |object| status_of(object, "Ready") == Some("True"))
            .await
    }

    /// Waits until the newest generation is not ready for this reason.
    async fn not_ready(&self, name: &str, reason: &str) -> DynamicObject {
        let refused = |object: &DynamicObject| {
            status_of(object, "Ready") == Some("False") && condition(object, "Ready").reason == reason
        };
        self.until(name, reason, refused).await
    }

    /// Waits until status says that what was delivered is not there any more.
    async fn not_delivered(&self, name: &str) -> DynamicObject {
        let lost = |object: &DynamicObject| status_of(object, "Delivered") == Some("False");
        self.until(name, "is not delivered", lost).await
    }

    /// Waits until `digest` is what an object delivers.
    async fn delivers(&self, name: &str, digest: &str) -> DynamicObject {
        let delivers = |object: &DynamicObject| {
            status_of(object, "Ready") == Some("True") && text(object, "/status/source/digest") == digest
        };
        self.until(name, digest, delivers).await
    }

    async fn config_map(&self, name: &str) -> ConfigMap {
        self.config_maps().get(name).await.expect("ConfigMap")
    }

    /// Waits until a ConfigMap is there, or not, or as `expected` wants it.
    async fn until_config_map(&self, name: &str, what: &str, expected: impl Fn(Option<&ConfigMap>) -> bool) {
        let (api, what) = (self.config_maps(), format!("ConfigMap {name:?} {what}"));
        let attempt = || async { Ok(expected(api.get_opt(name).await?.as_ref()).then_some(())) };
        wait::until(&what, LIMIT, PAUSE, attempt).await.expect(&what);
    }

    /// The bytes that the object of this name delivers by default.
    async fn bundle(&self, name: &str) -> Vec<u8> {
        bundle_in(&self.config_map(&format!("{name}-bundle")).await)
    }

    /// Events about an object: type, reason and note.
    async fn events(&self, name: &str) -> Vec<[String; 3]> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = events.list(&ListParams::default()).await.expect("events").items;
        let is_about = |event: &Event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name);
        let texts = |event: Event| [event.type_, event.reason, event.note].map(Option::unwrap_or_default);
        all.into_iter().filter(is_about).map(texts).collect()
    }

    /// Waits until there is an event with this text in its note: events follow the status.
    async fn until_event(&self, name: &str, note: &str) {
        let what = format!("an event about {name:?} says {note:?}");
        let attempt = || async {
            Ok(self
                .events(name)
                .await
                .iter()
                .any(|event| event[2].contains(note))
                .then_some(()))
        };
        wait::until(&what, LIMIT, PAUSE, attempt).await.expect(&what);
    }

    /// What the operator asked the API server about this namespace.
    fn audit(&self, filter: impl Fn(&AuditEntry) -> bool) -> Vec<AuditEntry> {
        self.cluster
            .audit(|entry| entry.namespace == self.namespace && filter(entry))
            .expect("audit log")
    }

    /// How often the operator wrote to each resource of this namespace.
    fn writes(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.audit(AuditEntry::is_write) {
            *counts.entry(entry.resource).or_default() += 1;
        }
        counts
    }

    async fn create_secret(&self, name: &str, key: &str, value: &str) {
        let secret = secret(name, key, value);
        self.secrets()
            .create(&PostParams::default(), &secret)
            .await
            .expect("created");
    }

    async fn create_config_map(&self, manifest: Value) -> ConfigMap {
        let config_map = serde_json::from_value(manifest).expect("ConfigMap");
        self.config_maps()
            .create(&PostParams::default(), &config_map)
            .await
            .expect("created")
    }

    /// Starts the operator again, after the test ended it.
    async fn restart(&mut self) {
        self.operator = start_operator(self.cluster, &self.namespace, &[], false).await;
    }
}

fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_policy-operator").into()
}

async fn start_operator(
    cluster: &ControlPlane,
    namespace: &str,
    arguments: &[&str],
    refuse_loopback: bool,
) -> Operator {
    let mut operator = launch_operator(cluster, namespace, arguments, refuse_loopback).await;
    operator.ready().await.expect("operator");
    operator
}

async fn launch_operator(
    cluster: &ControlPlane,
    namespace: &str,
    arguments: &[&str],
    refuse_loopback: bool,
) -> Operator {
    let options = OperatorOptions {
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        refuse_loopback,
        ..operator_options(cluster, namespace).await
    };
    Operator::start(&options).expect("operator")
}

/// Our binary, for one namespace.
async fn operator_options(cluster: &ControlPlane, namespace: &str) -> OperatorOptions {
    OperatorOptions {
        binary: binary(),
        kubeconfig: operator_kubeconfig(cluster).await,
        namespaces: vec![namespace.to_owned()],
        ..OperatorOptions::default()
    }
}

/// One for all tests: a new token for each would overwrite the file that others read.
async fn operator_kubeconfig(cluster: &ControlPlane) -> PathBuf {
    static KUBECONFIG: tokio::sync::OnceCell<PathBuf> = tokio::sync::OnceCell::const_new();
    let write = || async { cluster.operator_kubeconfig().await.expect("kubeconfig") };
    KUBECONFIG.get_or_init(write).await.clone()
}

async fn push(registry: &Endpoint, tag: &str, answer: &str) -> Pushed {
    let image = PolicyImage::new(Bundle::answering(answer).expect("bundle"));
    image.push(registry, REPOSITORY, tag).await.expect("pushed")
}

/// A spec for an image of a registry without TLS.
fn spec(image: &str) -> Value {
    json!({ "image": image, "insecure": true })
}

/// `spec` with what `more` adds.
fn with(mut spec: Value, more: &Value) -> Value {
    for (field, value) in more.as_object().expect("object") {
        spec[field] = value.clone();
    }
    spec
}

fn manifest(name: &str, spec: Value) -> DynamicObject {
    let mut data = json!({});
    data["spec"] = spec;
    DynamicObject::new(name, &object::resource()).data(data)
}

fn secret(name: &str, key: &str, value: &str) -> Secret {
    let type_ = if key == ".dockerconfigjson" {
        "kubernetes.io/dockerconfigjson"
    } else {
        "Opaque"
    };
    let manifest = json!({ "metadata": { "name": name }, "type": type_, "stringData": { key: value } });
    serde_json::from_value(manifest).expect("Secret")
}

/// A condition that must be there.
fn condition(object: &DynamicObject, kind: &str) -> Condition {
    object::condition(object, kind).unwrap_or_else(|| panic!("no condition {kind}: {}", object.data["status"]))
}

/// The status of a condition that speaks about the newest generation.
fn status_of<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a str> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
    let observed = condition["observedGeneration"].as_i64();
    condition["status"]
        .as_str()
        .filter(|_| observed == object.metadata.generation)
}

/// The text at a JSON pointer; empty if there is none.
fn text<'a>(object: &'a DynamicObject, pointer: &str) -> &'a str {
    object.data.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The bytes of the default key, which must be the only one.
fn bundle_in(config_map: &ConfigMap) -> Vec<u8> {
    let data = config_map.binary_data.as_ref().expect("binaryData");
    assert_eq!(
        data.keys().collect::<Vec<_>>(),
        ["bundle.tar.gz"],
        "{}",
        config_map.name_any()
    );
    data["bundle.tar.gz"].0.clone()
}

/// The bytes that [`push`] pushes for `answer`.
fn bytes(answer: &str) -> Vec<u8> {
    Bundle::answering(answer).expect("bundle").0
}
