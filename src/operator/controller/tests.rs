use std::convert::Infallible;
use std::sync::Mutex;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::runtime::events::Reporter;
use rstest::rstest;
use serde_json::json;
use tower::service_fn;

use super::*;
use crate::domain::bundle::Limits;
use crate::operator::identity::ObjectKey;
use crate::operator::metrics::Metrics;
use crate::operator::objects::ClusterObjects;
use crate::operator::status::StatusWriter;
use crate::operator::steps::validate::OperatorOptions;
use crate::operator::write_gate::WriteGate;
use crate::pipeline::Pipeline;
use crate::pipeline::in_memory_registry::InMemoryRegistry;
use crate::pipeline::single_flight::CacheObserver;
use state::StateCache;

/// A context whose runs fail, because the registry is empty. Its requests go to `client`.
fn context(client: Client) -> Context<InMemoryRegistry> {
    let observer: Arc<dyn CacheObserver> = Arc::new(());
    let gate = WriteGate::new(client.clone(), None);
    Context {
        objects: ClusterObjects::new(client),
        pipeline: Pipeline::new(InMemoryRegistry::default(), Limits::default(), &observer),
        options: OperatorOptions {
            require_verification: false,
            max_timeout: Duration::from_mins(1),
        },
        states: StateCache::default(),
        status: StatusWriter::new(gate.clone(), Reporter::from("policy-operator")),
        metrics: Arc::new(Metrics::new()),
        concurrency: 1,
        gate,
    }
}

/// The run stores the state of its object when it ends. That of one that is gone would stay for ever.
#[rstest]
#[case::that_stays_is_kept(false, 1)]
#[case::that_is_deleted_during_its_run_is_forgotten(true, 0)]
#[tokio::test]
async fn the_state_of_an_object(#[case] is_deleted: bool, #[case] failures: u32) {
    let object: PolicyImage = serde_json::from_value(json!({
        "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage",
        "metadata": { "name": "authz", "namespace": "acme", "uid": "1", "generation": 1 },
        "spec": { "image": "registry.example/acme/policy:1" },
    }))
    .unwrap();
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Apply(object.clone()));
    let (writer, gone) = (Arc::new(Mutex::new(writer)), object.clone());
    let service = service_fn(move |_: Request<Body>| {
        if is_deleted {
            writer.lock().unwrap().apply_watcher_event(&Event::Delete(gone.clone()));
        }
        let status = json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound" });
        let body = Body::from(status.to_string().into_bytes());
        async { Ok::<_, Infallible>(Response::builder().status(404).body(body).unwrap()) }
    });
    let context = Arc::new(context(Client::new(service, "acme")));
    let (config_maps, _writer) = reflector::store();
    let reconciler = PolicyImageReconciler {
        context: Arc::clone(&context),
        views: vec![(store, config_maps)],
    };
    let slot = Slots::new(1).take("acme".into()).await;
    let next = reconciler.reconcile(&NamespacedName::new("acme", "authz"), slot).await;
    assert_eq!(next.is_none(), is_deleted, "run again {next:?}");
    let key = ObjectKey::of(&object.metadata).unwrap();
    assert_eq!(context.states.get(&key).failures, failures);
}
