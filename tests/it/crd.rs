//! The definition of our resource in a real API server: what is accepted, what is refused and with which words, and that
//! the operator's own checks agree.

mod cases;

use std::fmt::Write as _;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Client, ResourceExt as _};
use policy_operator::operator::api::crd::definition;
use policy_operator::operator::api::spec::PolicyImage;
use policy_operator::operator::steps::dereference::{ObjectReader, ReadError, Values, dereference};
use policy_operator::operator::steps::validate::{OperatorOptions, validate};
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::object::resource;
use policy_operator_harness::wait;
use serde_json::{Value, json};

use cases::{accepted, refused};

const LIMIT: Duration = Duration::from_secs(30);

/// Creates an object as `kubectl apply --dry-run=server` does, and answers what the API server would keep or why not.
async fn ask(client: &Client, object: &Value) -> Result<DynamicObject, String> {
    let namespace = object["metadata"]["namespace"].as_str().expect("namespace");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource());
    let object = serde_json::from_value(object.clone()).expect("object");
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    api.create(&parameters, &object).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => panic!("the API server did not answer: {other}"),
    })
}

/// A namespace in which everything that is named exists, and holds what it should.
struct Everything;

fn values() -> Values {
    let long = "a".repeat(253);
    let pem = [&long, "ca.crt", "tls.crt", "tls.key"].map(|key| (key.to_owned(), cases::PEM.into()));
    pem.into_iter()
        .chain([(".dockerconfigjson".to_owned(), br#"{"auths":{}}"#.to_vec())])
        .collect()
}

impl ObjectReader for Everything {
    async fn secret(&self, _: &str, _: &str, _: &[&str]) -> Result<Option<Values>, ReadError> {
        Ok(Some(values()))
    }

    async fn config_map(&self, _: &str, _: &str, _: &[&str]) -> Result<Option<Values>, ReadError> {
        Ok(Some(values()))
    }

    async fn service_account(&self, _: &str, _: &str) -> Result<Option<Vec<String>>, ReadError> {
        Ok(Some(Vec::new()))
    }
}

/// What the operator says to an object that it finds in a cluster or a file, without a network.
async fn operator_says(object: &Value) -> Result<(), String> {
    let mut object: PolicyImage = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    object.metadata.uid = Some("1".into());
    let namespace = object.namespace().expect("namespace");
    let references = dereference(&Everything, &namespace, &object.spec).await;
    let references = references.map_err(|error| error.to_string())?;
    let plan = validate(&object, &references, OperatorOptions::default());
    plan.map(drop).map_err(|error| error.to_string())
}

/// One line per fault, without the name of the object, which is in front of each of them.
fn faults(message: &str) -> String {
    let faults = message.split_once("is invalid: ").map_or(message, |(_, faults)| faults);
    let faults = faults
        .strip_prefix('[')
        .and_then(|faults| faults.strip_suffix(']'))
        .unwrap_or(faults);
    // Said whenever something of the wrong size or type is refused.
    let faults = faults
        .split(", <nil>: Invalid value: null: some validation rules")
        .next()
        .unwrap_or(faults);
    let mut lines = String::new();
    for (position, fault) in faults.split(", spec").enumerate() {
        // A long value, which the API server repeats, tells a reader nothing.
        let short: String = if fault.chars().count() > 420 {
            fault
                .chars()
                .take(60)
                .chain(" […] ".chars())
                .chain(fault.chars().skip(fault.chars().count() - 200))
                .collect()
        } else {
            fault.to_owned()
        };
        let _ = writeln!(lines, "    {}{short}", if position == 0 { "" } else { "spec" });
    }
    lines
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_words_that_help() {
    let cluster = ControlPlane::shared().await.expect("control plane");
    let client = cluster.client().await.expect("client");
    let cases = refused();
    let answers = join_all(cases.iter().map(|(_, object)| ask(&client, object))).await;
    let (mut table, mut accepted) = (String::new(), Vec::new());
    for ((name, object), answer) in cases.iter().zip(answers) {
        match answer {
            Ok(_) => accepted.push(format!("by the API server: {name}")),
            Err(message) => write!(table, "{name}\n{}", faults(&message)).expect("written"),
        }
        if operator_says(object).await.is_ok() {
            accepted.push(format!("by the operator: {name}"));
        }
    }
    assert_eq!(accepted, Vec::<String>::new());
    insta::assert_snapshot!("refusals", table);
}

#[tokio::test]
async fn what_is_right_up_to_its_bounds_is_accepted_by_the_api_server_and_the_operator() {
    let cluster = ControlPlane::shared().await.expect("control plane");
    let client = cluster.client().await.expect("client");
    let cases = accepted();
    let answers = join_all(cases.iter().map(|(_, object)| ask(&client, object))).await;
    for ((name, object), answer) in cases.iter().zip(answers) {
        answer.unwrap_or_else(|message| panic!("{name}: {message}"));
        operator_says(object)
            .await
            .unwrap_or_else(|message| panic!("{name}: {message}"));
    }
}

#[tokio::test]
async fn absent_fields_get_their_defaults_and_unknown_ones_are_pruned_or_refused() {
    let cluster = ControlPlane::shared().await.expect("control plane");
    let client = cluster.client().await.expect("client");
    let mut object = cases::minimal();
    object["spec"]["delivery"] = json!({ "configMap": { "labels": null } });
    object["spec"]["timeout"] = Value::Null;
    object["spec"]["verfiy"] = json!({});
    let kept = ask(&client, &object).await.expect("accepted");
    let expected = json!({
        "image": "ghcr.io/acme/authz:1.0.0",
        "interval": "5m",
        "delivery": { "configMap": { "key": "bundle.tar.gz" } },
    });
    assert_eq!(kept.data["spec"], expected);

    let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource());
    let strict = PatchParams {
        dry_run: true,
        field_manager: Some("test".into()),
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let refused = api
        .patch("authz", &strict, &Patch::Apply(&object))
        .await
        .expect_err("strict");
    assert!(refused.to_string().contains("verfiy"), "{refused}");
}

#[tokio::test]
async fn the_definition_is_structural_and_established() {
    let cluster = ControlPlane::shared().await.expect("control plane");
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client().await.expect("client"));
    let definition = api.get("policyimages.opcr.io").await.expect("definition");
    let conditions = definition
        .status
        .and_then(|status| status.conditions)
        .expect("conditions");
    let mut held: Vec<_> = conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
        .collect();
    held.sort_unstable();
    assert_eq!(held, [("Established", "True"), ("NamesAccepted", "True")]);
    let version = &definition.spec.versions[0];
    assert!(
        version
            .subresources
            .as_ref()
            .is_some_and(|subresources| subresources.status.is_some())
    );
}

#[tokio::test]
async fn status_is_written_through_its_subresource_only() {
    let cluster = ControlPlane::shared().await.expect("control plane");
    let namespace = cluster.namespace("crd-status").await.expect("namespace");
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client().await.expect("client"), &namespace, &resource());
    let mut object = cases::minimal();
    object["metadata"]["namespace"] = json!(namespace);
    object["status"] = json!({ "observedGeneration": 7 });
    let made = serde_json::from_value(object).expect("object");
    let made = api.create(&PostParams::default(), &made).await.expect("created");
    assert_eq!(made.data.get("status"), None);
    let patch =
        Patch::Merge(json!({ "spec": { "image": "ghcr.io/acme/other" }, "status": { "observedGeneration": 8 } }));
    let kept = api
        .patch_status("authz", &PatchParams::default(), &patch)
        .await
        .expect("patched");
    assert_eq!(kept.data["status"]["observedGeneration"], 8);
    assert_eq!(kept.data["spec"]["image"], "ghcr.io/acme/authz:1.0.0");
    assert_eq!(kept.metadata.generation, Some(1));
}

#[tokio::test]
async fn kubectl_shows_what_matters_in_columns() {
    let cluster = ControlPlane::shared().await.expect("control plane");
    let namespace = cluster.namespace("crd-columns").await.expect("namespace");
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client().await.expect("client"), &namespace, &resource());
    let mut object = cases::minimal();
    object["metadata"]["namespace"] = json!(namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object).expect("object"))
        .await
        .expect("created");
    let condition = |kind: &str, message: &str| json!({ "type": kind, "status": "True", "reason": "Succeeded", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let digest = format!("sha256:{}", "a1".repeat(32));
    let status = json!({ "status": {
        "conditions": [condition("Ready", "delivered"), condition("Verified", "signed"), condition("Delivered", "written")],
        "source": { "reference": "ghcr.io/acme/authz:1.0.0", "digest": digest, "shortDigest": "a1a1a1a1a1a1" },
        "bundle": { "digest": digest, "size": 1, "revision": "r1", "roots": ["app"] },
        "delivery": { "configMap": { "name": "authz-bundle", "key": "bundle.tar.gz" } },
    } });
    api.patch_status("authz", &PatchParams::default(), &Patch::Merge(status))
        .await
        .expect("patched");
    let mut shown = String::new();
    for output in ["", "wide"] {
        let get =
            cluster
                .kubectl()
                .expect("kubectl")
                .args(["get", "polimg", "--namespace", &namespace, "--output", output]);
        let text = String::from_utf8(get.output(LIMIT).await.expect("output")).expect("text");
        // The age, and the padding that depends on it.
        for line in text.lines() {
            let words: Vec<_> = line
                .split("  ")
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect();
            let aged = |word: &&str| {
                if word.ends_with('s') && word.len() < 4 {
                    "0s".to_owned()
                } else {
                    (*word).to_owned()
                }
            };
            let _ = writeln!(shown, "{}", words.iter().map(aged).collect::<Vec<_>>().join(" | "));
        }
    }
    insta::assert_snapshot!(shown, @r"
    NAME | IMAGE | READY | VERIFIED | DIGEST | MESSAGE | AGE
    authz | ghcr.io/acme/authz:1.0.0 | True | True | a1a1a1a1a1a1 | delivered | 0s
    NAME | IMAGE | READY | VERIFIED | DIGEST | MESSAGE | AGE | CONFIGMAP | DELIVERED | REVISION
    authz | ghcr.io/acme/authz:1.0.0 | True | True | a1a1a1a1a1a1 | delivered | 0s | authz-bundle | True | r1
    ");
}

#[tokio::test]
async fn kubectl_explains_every_field() {
    let schema = schema();
    let mut silent = Vec::new();
    visit(&schema, "", &mut |path, schema| {
        if schema["description"].as_str().is_none_or(|text| text.trim().len() < 5) {
            silent.push(path.to_owned());
        }
    });
    assert_eq!(silent, Vec::<String>::new(), "fields without a description");
    let cluster = ControlPlane::shared().await.expect("control plane");
    // The description of a new kind is published some time after the kind.
    let text = wait::until("kubectl explain", LIMIT, Duration::from_millis(200), || async {
        let explain = cluster.kubectl()?.args(["explain", "policyimage.spec", "--recursive"]);
        Ok(Some(String::from_utf8(explain.output(LIMIT).await?)?))
    });
    insta::assert_snapshot!(text.await.expect("explained"));
}

/// Every number has a bound and a signed format, every string of the spec a length or a grammar, every list and map a
/// largest size: what an API server keeps, the operator reads a thousand times.
#[test]
fn everything_in_the_spec_is_bounded() {
    let schema = schema();
    let mut unbounded = Vec::new();
    visit(&schema["properties"]["spec"], "spec", &mut |path, schema| {
        let bounds: &[&str] = match schema["type"].as_str() {
            Some("string") => &["maxLength"],
            Some("array") => &["maxItems"],
            Some("integer") => &["minimum", "maximum"],
            Some("object") if schema.get("additionalProperties").is_some() => &["maxProperties"],
            Some("object" | "boolean") => &[],
            _ => &["a type"],
        };
        unbounded.extend(
            bounds
                .iter()
                .filter(|bound| schema.get(**bound).is_none())
                .map(|bound| format!("{path}: {bound}")),
        );
    });
    assert_eq!(unbounded, Vec::<String>::new());
    let text = schema.to_string();
    assert!(!text.contains("\"uint"), "a format that Kubernetes does not know");
    assert!(!text.contains("\"nullable\""));
}

fn schema() -> Value {
    let definition = definition().expect("definition");
    let schema = definition.spec.versions[0].schema.as_ref().expect("schema");
    serde_json::to_value(schema.open_api_v3_schema.as_ref().expect("schema")).expect("JSON")
}

/// Calls `look` with every schema below `schema`, and how one gets there; values of maps and items of lists included.
fn visit(schema: &Value, path: &str, look: &mut impl FnMut(&str, &Value)) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            continue;
        }
        let path = format!("{path}.{name}");
        look(&path, field);
        visit(field, &path, look);
        if let Some(items) = field.get("items") {
            visit(items, &format!("{path}[]"), look);
        }
    }
}
