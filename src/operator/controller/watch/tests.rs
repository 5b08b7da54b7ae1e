use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use http::{Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::client::Body;
use rstest::rstest;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::operator::api::spec::{MAX_SPEC_BYTES, UnreadableSpec};

/// An answer of the API server: a status and a body.
type Answer = (u16, String);

/// Answers to lists of PolicyImages and of ConfigMaps, in order, and all requests. A watch gets one of the refusals, or is
/// started and stays silent.
#[derive(Clone, Default)]
struct Server {
    refusals: Arc<Mutex<VecDeque<Answer>>>,
    policy_images: Arc<Mutex<VecDeque<Answer>>>,
    config_maps: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn scope(&self) -> WatchScope {
        let server = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let uri = request.uri().to_string();
                server.asked.lock().unwrap().push(uri.clone());
                let answers = match (uri.contains("watch=true"), uri.contains("configmaps")) {
                    (true, _) => &server.refusals,
                    (_, true) => &server.config_maps,
                    (_, false) => &server.policy_images,
                };
                if uri.contains("watch=true") && answers.lock().unwrap().is_empty() {
                    std::future::pending::<()>().await;
                }
                let (status, body) = answers.lock().unwrap().pop_front().unwrap_or((503, String::new()));
                Response::builder().status(status).body(Body::from(body.into_bytes()))
            }
        });
        WatchScope {
            client: Client::new(service, "default"),
            namespace: None,
            health: WatchHealth::default(),
            metrics: Arc::new(Metrics::new()),
        }
    }
}

fn list(items: &[Value], proceed: Option<&str>) -> Answer {
    let metadata = json!({ "resourceVersion": "100", "continue": proceed });
    let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items });
    (200, list.to_string())
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "namespace": "acme", "uid": format!("uid of {name}"), "resourceVersion": "1" })
}

fn policy_image(name: &str) -> Value {
    json!({ "metadata": metadata(name), "spec": { "image": "ghcr.io/acme/policy:1" } })
}

/// The objects of the first complete list.
async fn listed<K>(events: impl Stream<Item = Event<K>>) -> Vec<Event<K>> {
    let first = events.take_while(|event| ready(!matches!(event, Event::InitDone)));
    let first = first.filter(|event| ready(!matches!(event, Event::Init)));
    tokio::time::timeout(Duration::from_mins(5), first.collect())
        .await
        .expect("listed")
}

async fn objects(items: &[Value]) -> (Vec<PolicyImage>, WatchScope) {
    let server = Server::default();
    server.policy_images.lock().unwrap().push_back(list(items, None));
    let scope = server.scope();
    let objects = listed(scope.policy_images())
        .await
        .into_iter()
        .map(|event| match event {
            Event::InitApply(object) => object,
            other => panic!("{other:?}"),
        });
    (objects.collect(), scope)
}

fn names(objects: &[PolicyImage]) -> Vec<&str> {
    objects
        .iter()
        .filter_map(|object| object.metadata.name.as_deref())
        .collect()
}

fn counted(scope: &WatchScope, part: &str) -> bool {
    let text = scope.metrics.encode().expect("metrics");
    text.contains(&format!(
        "policy_operator_unreadable_objects_total{{kind=\"policyimages\",part=\"{part}\"}} 1\n"
    ))
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("pointer");
    object.pointer_mut(parent).expect("parent")[field] = value;
    object
}

#[rstest]
#[case::managed_fields("/metadata/managedFields", json!([{ "manager": "acme", "time": "9999-12-31T23:59:59Z" }]))]
#[case::status("/status", json!({ "conditions": [{ "lastTransitionTime": "9999-12-31T23:59:59Z" }] }))]
#[case::spec("/spec", json!({}))]
#[case::nameless("/metadata/name", json!(null))]
#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_does_not_hide_the_others(#[case] pointer: &str, #[case] value: Value) {
    let hostile = with(policy_image("hostile"), pointer, value);
    let (objects, _) = objects(&[policy_image("one"), hostile, policy_image("two")]).await;
    let mut healthy = names(&objects);
    healthy.retain(|name| *name != "hostile");
    assert_eq!(healthy, ["one", "two"]);
}

#[rstest]
#[case::year("9999-12-31T23:59:59Z")]
#[case::fraction("2026-01-01T00:00:00.123456789012Z")]
#[case::offset("2026-01-01T00:00:00+99:59")]
#[tokio::test(start_paused = true)]
async fn a_condition_that_cannot_be_read_is_left_out_alone_and_counted_once(#[case] time: &str) {
    let condition = |kind: &str, time: &str| json!({ "type": kind, "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": time });
    let conditions = json!([condition("Ready", time), condition("Verified", "2026-01-01T00:00:00Z")]);
    let status = json!({ "conditions": conditions, "lastHandledReconcileAt": "now" });
    let (objects, scope) = objects(&[with(policy_image("app"), "/status", status)]).await;
    let status = objects[0].status.as_ref().expect("status");
    let kinds: Vec<_> = status
        .conditions
        .iter()
        .map(|Condition { type_, .. }| type_.as_str())
        .collect();
    assert_eq!(kinds, ["Verified"]);
    assert_eq!(status.last_handled_reconcile_at.as_deref(), Some("now"));
    assert!(
        counted(&scope, "status"),
        "{}",
        scope.metrics.encode().expect("metrics")
    );
}

/// A schema that says `integer` admits more than 64 bits.
#[tokio::test(start_paused = true)]
async fn a_number_that_has_no_place_in_its_type_is_left_out_alone_and_counted() {
    let status = json!({ "observedGeneration": 1e30, "lastHandledReconcileAt": "now" });
    let (objects, scope) = objects(&[with(policy_image("app"), "/status", status)]).await;
    let status = objects[0].status.as_ref().expect("status");
    assert_eq!(status.observed_generation, None);
    assert_eq!(status.last_handled_reconcile_at.as_deref(), Some("now"));
    assert!(
        counted(&scope, "status"),
        "{}",
        scope.metrics.encode().expect("metrics")
    );
}

#[rstest]
#[case::missing(json!({ "semver": "1.x" }), "spec", Some("image"))]
#[case::wrong_type(json!({ "image": "a", "suspend": "no" }), "spec.suspend", None)]
#[case::deep(json!({ "image": "a", "verify": { "authorities": [{ "name": "release", "key": 5 }] } }), "spec.verify.authorities[0].key", None)]
#[case::no_spec(json!(null), "spec", None)]
#[tokio::test(start_paused = true)]
async fn a_spec_that_cannot_be_read_is_seen_and_says_where(
    #[case] spec: Value,
    #[case] field: &str,
    #[case] missing: Option<&str>,
) {
    let (objects, scope) = objects(&[with(policy_image("app"), "/spec", spec)]).await;
    let unreadable = UnreadableSpec::Field {
        field: field.to_owned(),
        missing: missing.map(str::to_owned),
    };
    assert_eq!(objects[0].spec.unreadable, Some(unreadable));
    assert!(counted(&scope, "spec"), "{}", scope.metrics.encode().expect("metrics"));
}

#[tokio::test(start_paused = true)]
async fn what_is_large_enough_to_fill_the_memory_is_not_kept() {
    let spec = |bytes: usize| json!({ "image": "a", "semver": "1".repeat(bytes) });
    let status = |bytes: usize| json!({ "lastHandledReconcileAt": "x".repeat(bytes) });
    let large = with(policy_image("large-spec"), "/spec", spec(MAX_SPEC_BYTES));
    let told = with(policy_image("large-status"), "/status", status(1 << 20));
    let small = with(
        with(policy_image("small"), "/spec", spec(1 << 10)),
        "/status",
        status(1 << 10),
    );
    let (objects, scope) = objects(&[large, told, small]).await;
    let unreadable: Vec<_> = objects.iter().map(|object| object.spec.unreadable.clone()).collect();
    assert_eq!(unreadable, [Some(UnreadableSpec::TooLarge), None, None]);
    let statuses: Vec<_> = objects.iter().map(|object| object.status.is_some()).collect();
    assert_eq!(statuses, [false, false, true]);
    for part in ["spec", "status"] {
        assert!(counted(&scope, part), "{}", scope.metrics.encode().expect("metrics"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_say_who_it_is_is_counted_and_passed_over() {
    let (objects, scope) = objects(&[with(policy_image("app"), "/metadata/uid", json!(5))]).await;
    assert_eq!(names(&objects), [] as [&str; 0]);
    assert!(
        counted(&scope, "metadata"),
        "{}",
        scope.metrics.encode().expect("metrics")
    );
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_small_pages() {
    let server = Server::default();
    let pages = [
        list(&[policy_image("one")], Some("more")),
        list(&[policy_image("two")], None),
    ];
    server.policy_images.lock().unwrap().extend(pages);
    let found = listed(server.scope().policy_images()).await;
    assert_eq!(found.len(), 2);
    let asked = server.asked.lock().unwrap().clone();
    let parameters = |uri: &str| uri.split(['?', '&']).map(str::to_owned).collect::<Vec<_>>();
    assert!(parameters(&asked[0]).contains(&"limit=25".to_owned()), "{asked:?}");
    assert!(parameters(&asked[1]).contains(&"continue=more".to_owned()), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_not_used_is_kept() {
    let mut object = policy_image("app");
    object["metadata"]["labels"] = json!({ "a": "b" });
    object["metadata"]["annotations"] = json!({
        "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(200_000),
        "reconcile.opcr.io/requestedAt": "y".repeat(5000),
    });
    object["metadata"]["managedFields"] = json!([{ "manager": "acme" }]);
    let (objects, _) = objects(&[object]).await;
    let kept = &objects[0].metadata;
    assert_eq!((&kept.labels, &kept.managed_fields), (&None, &None));
    let annotations = kept.annotations.clone().expect("annotations");
    assert_eq!(
        annotations.into_values().collect::<Vec<_>>(),
        ["y".repeat(ANNOTATION_LIMIT)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_config_map_that_names_no_policy_image_is_as_good_as_deleted() {
    let owner = |kind: &str| json!([{ "apiVersion": "opcr.io/v1alpha1", "kind": kind, "name": "app", "uid": "1", "controller": true }]);
    let config_map = |name: &str, kind: &str| {
        let mut metadata = metadata(name);
        metadata["ownerReferences"] = owner(kind);
        metadata["annotations"] = json!({ "large": "x".repeat(200_000) });
        json!({ "metadata": metadata })
    };
    let server = Server::default();
    let items = [config_map("ours", "PolicyImage"), config_map("foreign", "Gadget")];
    server.config_maps.lock().unwrap().push_back(list(&items, None));
    let events = listed(server.scope().config_maps()).await;
    let [Event::InitApply(ours), Event::Delete(foreign)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(ours.metadata.name.as_deref(), Some("ours"));
    assert_eq!(
        (foreign.metadata.name.as_deref(), &ours.metadata.annotations),
        (Some("foreign"), &None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_does_not_delay_the_other_and_is_told_after_a_minute() {
    let server = Server::default();
    let scope = server.scope();
    let status =
        json!({ "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "you may not" });
    let refusals = std::iter::repeat_n((403, status.to_string()), 100);
    server.config_maps.lock().unwrap().extend(refusals);
    server
        .policy_images
        .lock()
        .unwrap()
        .push_back(list(&[policy_image("one")], None));

    let failing = tokio::spawn(scope.config_maps().for_each(|_| ready(())));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let started = tokio::time::Instant::now();
    assert_eq!(listed(scope.policy_images()).await.len(), 1);
    assert!(
        started.elapsed() < Duration::from_millis(100),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(scope.health.reason(), None, "it may fail for a minute");
    tokio::time::sleep(Duration::from_secs(45)).await;
    let reason = scope.health.reason().expect("a reason");
    let expected = "the watch of configmaps has been failing for 65 s: list: 403 Forbidden: you may not";
    assert_eq!(reason, expected);
    scope.health.measure(&scope.metrics);
    let text = scope.metrics.encode().expect("metrics");
    for series in ["{kind=\"configmaps\"} 1", "{kind=\"policyimages\"} 0"] {
        assert!(
            text.contains(&format!("policy_operator_watches_failing{series}\n")),
            "{text}"
        );
    }

    server.config_maps.lock().unwrap().clear();
    server.config_maps.lock().unwrap().push_back(list(&[], None));
    tokio::time::sleep(pause::MAXIMUM).await;
    assert_eq!(scope.health.reason(), None, "the list is complete");
    failing.abort();
}

/// A server may refuse to continue from a version in its response, not only in an event of the watch.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_refused_because_its_version_expired_begins_with_a_list() {
    let server = Server::default();
    let lists = [
        list(&[policy_image("one")], None),
        list(&[policy_image("one"), policy_image("two")], None),
    ];
    server.policy_images.lock().unwrap().extend(lists);
    let status =
        json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" });
    server.refusals.lock().unwrap().push_back((410, status.to_string()));
    let events = server.scope().policy_images();
    let two = events.filter(|event| ready(matches!(event, Event::InitDone))).take(2);
    let listed = tokio::time::timeout(Duration::from_mins(5), two.count()).await;
    assert_eq!(listed, Ok(2));
    let asked = server.asked.lock().unwrap();
    assert_eq!(
        asked.iter().filter(|uri| !uri.contains("watch=true")).count(),
        2,
        "{asked:?}"
    );
}
