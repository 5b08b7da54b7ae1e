use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::client::Body;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::domain::access::RegistryAccess;
use crate::domain::artifact::{BUNDLE_LAYER, OCI_MANIFEST};
use crate::domain::bundle::Limits;
use crate::domain::bundle::testing::Tar;
use crate::domain::source::{ImageSource, Source};
use crate::domain::trust::TrustPolicy;
use crate::domain::trust::testing::revision;
use crate::operator::api::spec::PolicyImage;
use crate::operator::delivery::config_map::ConfigMapStates;
use crate::operator::delivery::config_map::testing::target;
use crate::operator::delivery::{Cluster, ConfigMapDelivery, Delivery};
use crate::operator::identity::ObjectKey;
use crate::operator::received::{MetadataOnly, Received};
use crate::operator::slot::Slots;
use crate::operator::steps::carry_out;
use crate::operator::steps::outcome::{Failure, LastGoodState, StepError, Success};
use crate::operator::steps::restore::restore_last_good;
use crate::operator::steps::validate::Plan;
use crate::operator::write_gate::WriteGate;
use crate::pipeline::Pipeline;
use crate::pipeline::in_memory_registry::InMemoryRegistry;
use crate::pipeline::single_flight::{CacheObserver, Freshness};

type ConfigMapMetadata = Received<ConfigMap, MetadataOnly>;

/// The ConfigMaps of an API server.
#[derive(Default)]
struct Server {
    config_maps: BTreeMap<String, Value>,
    /// The version of the last write.
    version: u64,
    /// The next request of this method meets a conflict.
    conflict: Option<Method>,
    /// The next write takes effect, and its response is an error.
    loses_response: bool,
    /// Method and name of each request.
    requests: Vec<String>,
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let created = serde_json::from_slice(body).unwrap_or(Value::Null);
        let name = match *method {
            Method::POST => created["metadata"]["name"].as_str().unwrap(),
            _ => path.rsplit('/').next().unwrap(),
        };
        self.requests.push(format!("{method} {name}"));
        let failure = |code: u16, reason: &str| {
            let status =
                json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "" });
            (code, status)
        };
        if *method == Method::GET {
            return self
                .config_maps
                .get(name)
                .map_or(failure(404, "NotFound"), |found| (200, found.clone()));
        }
        if *method == Method::POST && self.config_maps.contains_key(name) {
            return failure(409, "AlreadyExists");
        }
        if self.conflict.take_if(|conflict| conflict == method).is_some() {
            return failure(409, "Conflict");
        }
        if *method == Method::DELETE {
            self.config_maps.remove(name);
            return (200, json!({ "kind": "Status", "status": "Success" }));
        }
        self.version += 1;
        let mut applied: Value = serde_json::from_slice(body).unwrap();
        applied["metadata"]["uid"] = json!(format!("uid of {name}"));
        applied["metadata"]["resourceVersion"] = json!(self.version.to_string());
        applied["metadata"]["managedFields"] = json!([{ "manager": "policy-operator", "operation": "Apply" }]);
        self.config_maps.insert(name.to_owned(), applied.clone());
        if std::mem::take(&mut self.loses_response) {
            return failure(503, "ServiceUnavailable");
        }
        (200, applied)
    }
}

/// A cluster, a registry with one image, and what is remembered of an object between its runs.
struct World {
    server: Arc<Mutex<Server>>,
    gate: WriteGate,
    watched: (Store<ConfigMapMetadata>, reflector::store::Writer<ConfigMapMetadata>),
    pipeline: Pipeline<InMemoryRegistry>,
    image: String,
    newer_image: String,
    /// The label that the spec asks for.
    label: &'static str,
    states: ConfigMapStates,
    /// Whether the object is deleted during its next runs.
    is_deleted: bool,
}

impl World {
    fn new() -> Self {
        let server = Arc::new(Mutex::new(Server::default()));
        let shared = Arc::clone(&server);
        let service = service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&shared);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (code, answer) = server.lock().unwrap().answer(&head.method, head.uri.path(), &body);
                Response::builder()
                    .status(code)
                    .body(Body::from(answer.to_string().into_bytes()))
            }
        });
        let registry = InMemoryRegistry::default();
        let image = push(&registry, &Tar::policy().gzip());
        let newer_image = push(&registry, &Tar::policy().file("newer.rego", b"package newer").gzip());
        let observer: Arc<dyn CacheObserver> = Arc::new(());
        Self {
            server,
            gate: WriteGate::new(Client::new(service, "acme"), None),
            watched: reflector::store(),
            pipeline: Pipeline::new(registry, Limits::default(), &observer),
            image,
            newer_image,
            label: "first",
            states: ConfigMapStates::default(),
            is_deleted: false,
        }
    }

    /// Carries out a plan that delivers to `names`. Status says that a run has delivered to the ConfigMap `recorded`.
    async fn run(&mut self, names: &[&str], recorded: &str) -> Result<Success, Failure> {
        self.in_run(names, recorded, async |plan, run| {
            carry_out(plan, Freshness::New, run).await
        })
        .await
    }

    /// What a run does that fails for want of a registry. It wants `name`, and status says `one`.
    async fn fail(&mut self, name: &str) -> LastGoodState {
        let error = StepError::DeadlineExceeded(Duration::from_secs(1));
        self.in_run(&[name], "one", async |plan, run| {
            restore_last_good(Some(plan), &error, run).await
        })
        .await
    }

    /// `steps` of a run.
    async fn in_run<T>(
        &mut self,
        names: &[&str],
        recorded: &str,
        steps: impl AsyncFnOnce(&Plan, &mut RunContext<'_, InMemoryRegistry>) -> T,
    ) -> T {
        let bundle = json!({ "digest": "none", "size": 1, "revision": "", "roots": [] });
        let status =
            json!({ "bundle": bundle, "delivery": { "configMap": { "name": recorded, "key": "bundle.tar.gz" } } });
        let object: PolicyImage = serde_json::from_value(json!({
            "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage",
            "metadata": { "name": "authz", "namespace": "acme", "uid": "1" },
            "spec": { "image": self.image }, "status": status,
        }))
        .unwrap();
        let image = self.image.parse().unwrap();
        let labelled = |name: &&str| ConfigMapDelivery {
            labels: [("label".to_owned(), self.label.to_owned())].into(),
            ..target(name)
        };
        let plan = Plan {
            source: Source::Image(ImageSource::new(&image, None, RegistryAccess::default()).unwrap()),
            trust: TrustPolicy::NotConfigured,
            deliveries: names.iter().map(labelled).map(Delivery::ConfigMap).collect(),
        };
        let mut slot = Slots::new(1).take("acme".into()).await;
        let (policy_images, mut writer) = reflector::store();
        if !self.is_deleted {
            writer.apply_watcher_event(&Event::Apply(object.clone()));
        }
        let mut run = RunContext {
            object: &object,
            key: &ObjectKey::of(&object.metadata).unwrap(),
            policy_images: &policy_images,
            cluster: Cluster {
                gate: &self.gate,
                config_maps: &self.watched.0,
            },
            pipeline: &self.pipeline,
            slot: &mut slot,
            config_maps: &mut self.states,
        };
        steps(&plan, &mut run).await
    }

    /// Lets the watch show what there is.
    fn show(&mut self) {
        for config_map in self.server.lock().unwrap().config_maps.values() {
            let shown = serde_json::from_value(config_map.clone()).unwrap();
            self.watched.1.apply_watcher_event(&Event::Apply(shown));
        }
    }

    /// Another client is faster than the next request of this method.
    fn conflict_with(&self, method: Method) {
        self.server.lock().unwrap().conflict = Some(method);
    }

    fn names(&self) -> Vec<String> {
        self.server.lock().unwrap().config_maps.keys().cloned().collect()
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.server.lock().unwrap().requests)
    }
}

/// Pushes a policy image, and returns its name with the digest.
fn push(registry: &InMemoryRegistry, bytes: &[u8]) -> String {
    let repository = revision(b"").repository;
    let digest = registry.put_blob(&repository, bytes);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "layers": [{ "mediaType": BUNDLE_LAYER, "digest": digest, "size": bytes.len() }],
    });
    registry.put_manifest(&repository, OCI_MANIFEST, manifest.to_string().as_bytes());
    revision(manifest.to_string().as_bytes()).to_string()
}

#[tokio::test]
async fn deliveries_of_one_plan_leave_each_other_alone() {
    let mut world = World::new();
    for recorded in ["one", "two", "one"] {
        world.run(&["one", "two"], recorded).await.unwrap();
        assert_eq!(world.names(), ["one", "two"]);
    }
    world.run(&["two", "three"], "one").await.unwrap();
    assert_eq!(world.names(), ["three", "two"]);
}

#[tokio::test]
async fn what_its_watch_shows_as_it_was_left_is_not_read_again() {
    let mut world = World::new();
    world.run(&["one", "two"], "one").await.unwrap();
    world.show();
    world.requests();
    world.run(&["one", "two"], "one").await.unwrap();
    assert_eq!(world.requests(), [""; 0]);
}

#[tokio::test]
async fn a_config_map_that_nothing_knows_of_is_created_without_a_look() {
    let mut world = World::new();
    world.run(&["new"], "one").await.unwrap();
    assert_eq!(
        world.requests(),
        ["POST new", "GET one"],
        "only what status records is looked for"
    );
}

#[tokio::test]
async fn a_config_map_that_status_records_is_looked_at_before_it_is_written() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    assert_eq!(world.requests(), ["GET one", "POST one"]);
}

/// It may be ours, of a process that was killed before it wrote the status, or of another client.
#[tokio::test]
async fn a_config_map_whose_creation_is_refused_is_looked_at_by_the_next_run() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.states = ConfigMapStates::default();
    world.requests();
    let failure = world.run(&["one"], "two").await.unwrap_err();
    assert!(failure.error.is_conflict(), "{}", failure.error);
    assert_eq!(world.requests(), ["POST one"]);
    world.run(&["one"], "two").await.unwrap();
    assert_eq!(world.requests(), ["GET one", "GET two"], "found in place");
}

/// An earlier leader may have known a newer version of the object. The watch gets the time of a run to show it.
#[tokio::test]
async fn what_another_process_delivered_is_looked_at_twice_before_it_is_replaced() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.states = ConfigMapStates::default();
    world.image = world.newer_image.clone();
    world.requests();
    let failure = world.run(&["one"], "one").await.unwrap_err();
    assert!(failure.error.is_conflict(), "{}", failure.error);
    assert_eq!(world.requests(), ["GET one"]);
    world.run(&["one"], "one").await.unwrap();
    assert_eq!(world.requests(), ["GET one", "PATCH one"]);
}

#[tokio::test]
async fn what_another_process_delivered_is_replaced_although_it_is_edited_all_the_time() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.states = ConfigMapStates::default();
    world.image = world.newer_image.clone();
    let server = Arc::clone(&world.server);
    let edit = |version: &str| {
        server.lock().unwrap().config_maps.get_mut("one").unwrap()["metadata"]["resourceVersion"] = json!(version);
    };
    edit("98");
    let failure = world.run(&["one"], "one").await.unwrap_err();
    assert!(failure.error.is_conflict(), "{}", failure.error);
    edit("99");
    world.run(&["one"], "one").await.unwrap();
    assert_eq!(world.requests().last().unwrap(), "PATCH one");
}

/// Status knows the ConfigMap without the labels of the spec.
#[tokio::test]
async fn an_intact_config_map_is_not_written_again_while_runs_fail() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.show();
    world.requests();
    for _ in 0..4 {
        assert_eq!(world.fail("one").await, LastGoodState::InPlace);
    }
    world.run(&["one"], "one").await.unwrap();
    assert_eq!(world.requests(), [""; 0]);
}

/// Garbage collection removes it, and it must not come back for an owner that is gone.
#[tokio::test]
async fn the_config_map_of_a_deleted_object_is_not_restored() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.is_deleted = true;
    world.server.lock().unwrap().config_maps.clear();
    assert_eq!(world.fail("one").await, LastGoodState::Unknown);
    assert_eq!(world.names(), [""; 0]);
}

/// The watch may show the ConfigMap as we left it for a while yet.
#[tokio::test]
async fn a_conflict_ends_the_run_and_the_next_one_reads_again() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.show();
    world.requests();
    world.label = "changed";
    world.conflict_with(Method::PATCH);
    let failure = world.run(&["one"], "one").await.unwrap_err();
    assert!(failure.error.is_conflict(), "{}", failure.error);
    assert_eq!(world.requests(), ["PATCH one"]);
    world.run(&["one"], "one").await.unwrap();
    assert_eq!(world.requests(), ["GET one", "PATCH one"]);
}

#[tokio::test]
async fn a_conflict_while_a_previous_config_map_is_removed_is_one_too() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.conflict_with(Method::DELETE);
    let failure = world.run(&["two"], "one").await.unwrap_err();
    assert!(failure.error.is_conflict(), "{}", failure.error);
    world.run(&["two"], "one").await.unwrap();
    assert_eq!(world.names(), ["two"]);
}

/// The newer bundle is there, and nobody told us.
#[tokio::test]
async fn a_write_that_took_effect_although_its_response_was_an_error_is_not_undone() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.show();
    world.image = world.newer_image.clone();
    world.server.lock().unwrap().loses_response = true;
    world.run(&["one"], "one").await.unwrap_err();
    let newer = world.server.lock().unwrap().config_maps["one"].clone();
    world.show();
    assert_eq!(world.fail("one").await, LastGoodState::Unknown);
    assert_eq!(world.server.lock().unwrap().config_maps["one"], newer);
    // Once it is found in place, it is the last good bundle.
    world.run(&["one"], "one").await.unwrap();
    assert_ne!(world.fail("one").await, LastGoodState::Missing);
    assert_eq!(world.server.lock().unwrap().config_maps["one"], newer);
}

#[tokio::test]
async fn a_config_map_that_another_client_changed_during_its_restoration_is_not_intact() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.show();
    world.server.lock().unwrap().config_maps.get_mut("one").unwrap()["binaryData"] = json!({});
    world.server.lock().unwrap().config_maps.get_mut("one").unwrap()["metadata"]["resourceVersion"] = json!("99");
    world.show();
    world.conflict_with(Method::PATCH);
    assert_eq!(world.fail("one").await, LastGoodState::Missing);
    assert!(!world.states.is_intact(|_, _| true));
    assert_eq!(world.fail("one").await, LastGoodState::InPlace);
}

/// Its status could not be written.
#[tokio::test]
async fn the_config_map_of_an_earlier_spec_does_not_come_back() {
    let mut world = World::new();
    world.run(&["one"], "one").await.unwrap();
    world.run(&["two"], "one").await.unwrap();
    assert_eq!(world.fail("two").await, LastGoodState::InPlace);
    assert_eq!(world.names(), ["two"]);
    world.server.lock().unwrap().config_maps.clear();
    assert_eq!(world.fail("two").await, LastGoodState::InPlace);
    assert_eq!(world.names(), ["two"], "restored where it is wanted now");
}
