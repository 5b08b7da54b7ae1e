//! What one object holds keeps the operator from seeing no other: not now, not after a restart.

use futures::future::join_all;
use http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::operator::{Operator, OperatorOptions};
use policy_operator_harness::wait;
use rstest::rstest;
use serde_json::{Value, json};

use super::failures::{docker_config, locked_registry};
use super::{
    Arena, LIMIT, PAUSE, REPOSITORY, binary, bundle_in, bytes, condition, manifest, metrics, push, spec, with,
};

/// Kubernetes takes these for times; the types of its clients in Rust do not.
const YEAR: &str = "9999-12-31T23:59:59Z";
const FRACTION: &str = "2026-01-01T00:00:00.123456789012Z";
const OFFSET: &str = "2026-01-01T00:00:00+99:59";

const POLICY_IMAGES: &str = "apis/opcr.io/v1alpha1";
const CORE: &str = "api/v1";

/// Objects as JSON, because no type could hold them.
struct Raw<'a> {
    client: Client,
    namespace: &'a str,
}

impl<'a> Raw<'a> {
    /// With the rights of an administrator.
    fn admin(arena: &'a Arena) -> Self {
        Self {
            client: arena.client.clone(),
            namespace: &arena.namespace,
        }
    }

    /// As somebody who may read, create and update PolicyImages and nothing else.
    async fn tenant(arena: &'a Arena) -> Self {
        let admin = Self::admin(arena);
        let rules =
            json!([{ "apiGroups": ["opcr.io"], "resources": ["policyimages"], "verbs": ["get", "create", "update"] }]);
        let role = json!({ "metadata": { "name": "tenant" }, "rules": rules });
        let rbac = "apis/rbac.authorization.k8s.io/v1";
        admin.post(rbac, "roles", &role).await;
        let reference = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant" });
        let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "tenant" });
        let binding = json!({ "metadata": { "name": "tenant" }, "roleRef": reference, "subjects": [subject] });
        admin.post(rbac, "rolebindings", &binding).await;

        let kubeconfig = Kubeconfig::read_from(arena.cluster.kubeconfig()).expect("kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.expect("configuration");
        config.auth_info.impersonate = Some("tenant".to_owned());
        Self {
            client: Client::try_from(config).expect("client"),
            namespace: &arena.namespace,
        }
    }

    async fn post(&self, group: &str, resource: &str, object: &Value) -> Value {
        let request = Request::post(format!("/{group}/namespaces/{}/{resource}", self.namespace));
        let request = request.header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes()).expect("request");
        self.client.request(request).await.expect("created")
    }

    async fn get(&self, group: &str, place: &str) -> Value {
        let request = Request::get(format!("/{group}/namespaces/{}/{place}", self.namespace));
        let request = request.body(Vec::new()).expect("request");
        self.client.request(request).await.expect("object")
    }

    /// Changes an object by PUT, until nobody else changed it at the same moment, and answers what was kept.
    async fn update(&self, group: &str, place: &str, change: impl Fn(&mut Value)) -> Value {
        let object_place = place.strip_suffix("/status").unwrap_or(place);
        let attempt = || async {
            let mut object = self.get(group, object_place).await;
            change(&mut object);
            let path = format!("/{group}/namespaces/{}/{place}?fieldManager=tenant", self.namespace);
            let request = Request::put(path);
            let request = request.header("content-type", "application/json");
            let request = request.body(object.to_string().into_bytes())?;
            match self.client.request::<Value>(request).await {
                Ok(kept) => Ok(Some(kept)),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                Err(error) => panic!("{place}: {error}"),
            }
        };
        wait::until("an update without a conflict", LIMIT, PAUSE, attempt)
            .await
            .expect("updated")
    }

    /// Gives the managed fields of an object a time that cannot be read.
    async fn poison(&self, group: &str, place: &str, change: impl Fn(&mut Value)) {
        let dated = |object: &mut Value| {
            date_fields(object);
            change(object);
        };
        let kept = self.update(group, place, dated).await;
        let entries = kept["metadata"]["managedFields"].as_array().expect("managed fields");
        assert!(
            entries.iter().any(|entry| entry["time"] == YEAR),
            "the API server took it: {kept}"
        );
    }

    async fn until_ready(&self, name: &str) {
        let ready = |object: &Value| {
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        let place = format!("policyimages/{name}");
        let attempt = || async { Ok(ready(&self.get(POLICY_IMAGES, &place).await).then_some(())) };
        wait::until("a hostile object is ready too", LIMIT, PAUSE, attempt)
            .await
            .expect("ready");
    }
}

/// Gives all that was written so far a time that cannot be read. The API server keeps it if something else changes in
/// the same update, and if it is somebody else's.
fn date_fields(object: &mut Value) {
    let entries = object["metadata"]["managedFields"].as_array_mut();
    for entry in entries.expect("managed fields") {
        entry["time"] = json!(YEAR);
    }
    object["metadata"]["annotations"]["acme.example.com/changed"] = json!(fastrand::u64(..).to_string());
}

/// A new object is delivered, and a ConfigMap that somebody edits is restored. Twice: after a change an object is looked
/// at once more by the clock, which could be what restores it the first time.
async fn assert_sight(arena: &Arena, name: &str) {
    arena.deliver(name, arena.spec("1.0.0")).await;
    let config_map = format!("{name}-bundle");
    for forged in ["Zm9yZ2Vk", "Zm9yZ2VkIGFnYWlu"] {
        let forged = json!({ "binaryData": { "bundle.tar.gz": forged } });
        arena.patch_config_map(&config_map, forged).await;
        arena
            .until_config_map(&config_map, "is as it was", |found| {
                found.is_some_and(|found| bundle_in(found) == bytes("one"))
            })
            .await;
    }
}

/// As [`assert_sight`], now and after a restart, which lists everything anew.
async fn assert_sight_over_a_restart(arena: &mut Arena) {
    assert_sight(arena, "now").await;
    arena.operator.process().kill().await.expect("killed");
    arena.restart().await;
    assert_sight(arena, "after").await;
}

#[tokio::test]
async fn managed_fields_of_one_object_hide_no_other() {
    let mut arena = Arena::open("sight-managed-fields").await;
    arena.push("1.0.0", "one").await;
    let tenant = Raw::tenant(&arena).await;
    let object = json!({ "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage", "metadata": { "name": "hostile" }, "spec": arena.spec("1.0.0") });
    tenant.post(POLICY_IMAGES, "policyimages", &object).await;
    tenant.poison(POLICY_IMAGES, "policyimages/hostile", |_| ()).await;
    let admin = Raw::admin(&arena);
    admin.until_ready("hostile").await;
    assert_sight_over_a_restart(&mut arena).await;
}

#[rstest]
#[case::year("year", YEAR)]
#[case::fraction("fraction", FRACTION)]
#[case::offset("offset", OFFSET)]
#[tokio::test]
async fn the_time_of_a_condition_of_one_object_hides_no_other_and_is_written_anew(
    #[case] case: &str,
    #[case] time: &str,
) {
    let mut arena = Arena::open(&format!("sight-status-{case}")).await;
    arena.push("1.0.0", "one").await;
    arena.deliver("hostile", arena.spec("1.0.0")).await;
    let admin = Raw::admin(&arena);
    let set_time = |object: &mut Value| object["status"]["conditions"][0]["lastTransitionTime"] = json!(time);
    admin
        .update(POLICY_IMAGES, "policyimages/hostile/status", set_time)
        .await;
    assert_sight_over_a_restart(&mut arena).await;
    let counted = "policy_operator_unreadable_objects_total{kind=\"policyimages\",part=\"status\"}";
    assert!((metrics::value(&arena.operator, counted).await - 1.0).abs() < f64::EPSILON);
    let lines = |arena: &Arena| {
        arena
            .operator
            .log_text()
            .matches("a part of an object cannot be read")
            .count()
    };
    assert_eq!(lines(&arena), 1, "told once");

    let admin = Raw::admin(&arena);
    let mended = || async {
        let object = admin.get(POLICY_IMAGES, "policyimages/hostile").await;
        let times = object["status"]["conditions"].as_array().expect("conditions").clone();
        Ok((!times.iter().any(|condition| condition["lastTransitionTime"] == time)).then_some(()))
    };
    wait::until("the time is written anew", LIMIT, PAUSE, mended)
        .await
        .expect("mended");
}

#[tokio::test]
async fn a_config_map_with_our_label_hides_no_other() {
    let mut arena = Arena::open("sight-config-map").await;
    arena.push("1.0.0", "one").await;
    let admin = Raw::admin(&arena);
    let labels = json!({ "app.kubernetes.io/managed-by": "policy-operator" });
    let foreign =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "foreign", "labels": labels } });
    admin.post(CORE, "configmaps", &foreign).await;
    admin.poison(CORE, "configmaps/foreign", |_| ()).await;
    assert_sight_over_a_restart(&mut arena).await;
}

#[tokio::test]
async fn a_delivered_config_map_is_restored_whatever_its_managed_fields_hold() {
    let mut arena = Arena::open("sight-delivered").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let forge = |object: &mut Value| object["binaryData"]["bundle.tar.gz"] = json!("Zm9yZ2Vk");
    for _ in 0..2 {
        Raw::admin(&arena).poison(CORE, "configmaps/app-bundle", forge).await;
        let restored = || async {
            let object = Raw::admin(&arena).get(CORE, "configmaps/app-bundle").await;
            Ok((object["binaryData"]["bundle.tar.gz"] != "Zm9yZ2Vk").then_some(()))
        };
        wait::until("the bundle is back", LIMIT, PAUSE, restored)
            .await
            .expect("restored");
        arena.operator.process().kill().await.expect("killed");
        arena.restart().await;
    }
}

#[tokio::test]
async fn a_secret_that_no_client_can_read_is_read_for_its_value_and_never_logged() {
    const CANARY: &str = "canary-51e9d0";
    let arena = Arena::with("sight-secret", &["--log-level", "trace"]).await;
    let registry = locked_registry(CANARY).await;
    push(registry.endpoint(), "1.0.0", "one").await;
    arena
        .create_secret(
            "pull",
            ".dockerconfigjson",
            &docker_config(registry.host(), "alice", CANARY),
        )
        .await;
    let admin = Raw::admin(&arena);
    admin.poison(CORE, "secrets/pull", |_| ()).await;
    let secret = admin.get(CORE, "secrets/pull").await;

    let image = spec(&format!("{}/{REPOSITORY}:1.0.0", registry.host()));
    let pull = json!({ "imagePullSecrets": [{ "name": "pull" }] });
    arena.deliver("app", with(image, &pull)).await;
    let log = arena.operator.log_text();
    assert!(log.contains("TRACE"), "the log holds everything");
    let value = secret["data"][".dockerconfigjson"].as_str().expect("value");
    for secret in [CANARY, value] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

/// Texts that together are as large as an object may be, but for its data.
fn many(count: usize, text: impl Fn(usize) -> (String, Value)) -> Value {
    Value::Object((0..count).map(text).collect())
}

fn large_annotations() -> Value {
    json!({ "annotations": { "acme.example.com/large": "x".repeat(250 << 10) } })
}

fn many_labels() -> Value {
    json!({ "labels": many(40_000, |number| (format!("l{number}.example.com/a"), json!(""))) })
}

fn many_owners() -> Value {
    let owner = |number: usize| json!({ "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage", "name": format!("a{number}"), "uid": format!("{number}") });
    json!({ "ownerReferences": (0..12_000).map(owner).collect::<Vec<_>>() })
}

/// Lists are read page by page, and what is not used of an object is dropped while it is read.
#[rstest]
#[case::annotations("sight-annotations", 400, 140, large_annotations())]
#[case::labels("sight-labels", 50, 160, many_labels())]
#[case::owners("sight-owners", 50, 160, many_owners())]
#[tokio::test]
async fn large_foreign_config_maps_are_never_in_memory_together(
    #[case] name: &str,
    #[case] count: usize,
    #[case] limit: u64,
    #[case] metadata: Value,
) {
    let mut arena = Arena::open(name).await;
    arena.push("1.0.0", "one").await;
    arena.operator.process().stop().await.expect("stopped");
    let admin = Raw::admin(&arena);
    let create = async |number: usize| {
        let mut metadata = metadata.clone();
        metadata["name"] = json!(format!("foreign-{number}"));
        metadata["labels"]["app.kubernetes.io/managed-by"] = json!("policy-operator");
        let config_map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
        admin.post(CORE, "configmaps", &config_map).await;
    };
    for numbers in (0..count).collect::<Vec<_>>().chunks(8) {
        join_all(numbers.iter().map(|number| create(*number))).await;
    }
    arena.restart().await;
    // Not before the list is complete.
    assert_sight(&arena, "app").await;
    let mebibytes = arena.operator.peak_rss().expect("memory") >> 20;
    assert!(mebibytes < limit, "{mebibytes} MiB");
}

/// The CRD of another version admits what this one cannot read.
#[tokio::test]
async fn a_spec_of_another_version_is_reported_and_hides_no_other() {
    let cluster = ControlPlane::start().await.expect("control plane");
    let client = cluster.client().await.expect("client");
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/insecure/type";
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let rules = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations";
    let patch = serde_json::from_value(json!([
        { "op": "remove", "path": rules },
        { "op": "replace", "path": field, "value": "string" },
    ]));
    let patch: Patch<Value> = Patch::Json(patch.expect("patch"));
    definitions
        .patch("policyimages.opcr.io", &PatchParams::default(), &patch)
        .await
        .expect("patched");

    let namespace = cluster.namespace("sight-version").await.expect("namespace");
    let images = policy_operator_harness::object::api(client, &namespace);
    let image = json!({ "image": "127.0.0.1:1/acme/policy:1", "insecure": "very" });
    let create = || async {
        // The API server takes a moment to notice that the schema changed.
        Ok(images
            .create(&PostParams::default(), &manifest("other", image.clone()))
            .await
            .ok())
    };
    wait::until("the other schema is in force", LIMIT, PAUSE, create)
        .await
        .expect("created");
    let kubeconfig = cluster.operator_kubeconfig().await.expect("kubeconfig");
    let operator = Operator::start(&OperatorOptions {
        binary: binary(),
        kubeconfig,
        namespaces: vec![namespace],
        ..OperatorOptions::default()
    });
    let _operator = operator.expect("operator");
    let reported = || async {
        let object = images.get("other").await?;
        let conditions = object.data.pointer("/status/conditions").is_some();
        Ok(conditions.then_some(object))
    };
    let object = wait::until("it is reported", LIMIT, PAUSE, reported)
        .await
        .expect("reported");
    let ready = condition(&object, "Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "InvalidSpec"));
    let expected = "spec.insecure cannot be read by this version of the operator; compare";
    assert!(ready.message.starts_with(expected), "{}", ready.message);
    assert_eq!(condition(&object, "Stalled").status, "True");
}
