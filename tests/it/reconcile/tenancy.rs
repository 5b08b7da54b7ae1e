//! What one tenant writes cannot reach another's secrets, the cluster's own network, or the operator's other work.

use std::collections::BTreeSet;

use kube::api::{Api, PostParams};
use rstest::rstest;
use serde_json::{Value, json};

use super::{Arena, REPOSITORY, condition, manifest, secret, spec, status_of, with};

pub(super) fn key_in(kind: &str, name: &str) -> Value {
    json!({ "verify": { "authorities": [{ "name": "release", "key": { kind: { "name": name, "key": "pem" } } }] } })
}

#[rstest]
#[case(json!({ "imagePullSecrets": [{ "name": "other/secret" }] }))]
#[case(json!({ "imagePullSecrets": [{ "name": "../other/secret" }] }))]
#[case(json!({ "serviceAccountName": "other/default" }))]
#[case(json!({ "insecure": false, "tls": { "caRef": { "configMapRef": { "name": "other/ca", "key": "ca.crt" } } } }))]
#[case(json!({ "insecure": false, "tls": { "certSecretRef": { "name": "other/client" } } }))]
#[case(key_in("secretRef", "other/keys"))]
#[case(key_in("configMapRef", "other/keys"))]
#[case(json!({ "delivery": { "configMap": { "name": "other/target" } } }))]
#[tokio::test]
async fn a_name_with_a_namespace_is_refused_at_admission(#[case] more: Value) {
    let cluster = super::ControlPlane::shared().await.expect("control plane");
    let client = cluster.client().await.expect("client");
    let api = super::object::api(client, "default");
    let object = manifest("app", with(spec("registry.acme.example/policy:1"), &more));
    let try_only = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let refused = api.create(&try_only, &object).await.expect_err("refused");
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 422),
        "{refused}"
    );
}

/// D18.
#[tokio::test]
async fn nothing_is_read_in_another_namespace() {
    let arena = Arena::open("tenancy-home").await;
    let other = arena.cluster.namespace("tenancy-other").await.expect("namespace");
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(arena.client.clone(), &other);
    secrets
        .create(&PostParams::default(), &secret("pull", ".dockerconfigjson", "{}"))
        .await
        .expect("created");
    arena
        .create(
            "app",
            with(
                arena.spec("1.0.0"),
                &json!({ "imagePullSecrets": [{ "name": "pull" }] }),
            ),
        )
        .await;
    arena.not_ready("app", "ReferenceNotFound").await;
    let elsewhere = arena
        .cluster
        .audit(|entry| entry.namespace == other)
        .expect("audit log");
    assert_eq!(elsewhere, []);
    let read: BTreeSet<String> = arena
        .audit(|entry| entry.resource == "secrets")
        .into_iter()
        .map(|entry| entry.verb)
        .collect();
    assert_eq!(read, BTreeSet::from(["get".to_owned()]), "by name, never listed");
}

/// D10. Nothing is sent, and the message is the same for each, so nobody learns what is there.
#[tokio::test]
async fn addresses_inside_the_cluster_are_refused_before_anything_is_sent() {
    let arena = Arena::configured("tenancy-addresses", &[], true).await;
    let (registry, port) = (
        arena.registry.host().to_owned(),
        arena.registry.host().rsplit(':').next().expect("port"),
    );
    let api_server = api_server(&arena);
    let hosts = [
        "169.254.169.254",
        "169.254.169.254:80",
        "100.100.100.200",
        "0.0.0.0",
        &registry,
        &format!("localhost:{port}"),
        &format!("127.1.2.3:{port}"),
        &api_server,
    ];
    let mut messages = BTreeSet::new();
    for (index, host) in hosts.iter().enumerate() {
        let name = format!("app-{index}");
        arena.create(&name, spec(&format!("{host}/{REPOSITORY}:1.0.0"))).await;
        let object = arena.not_ready(&name, "AddressRefused").await;
        let bare = host.split(':').next().expect("host");
        let message = condition(&object, "Ready").message;
        messages.insert(message.replace(*host, "[host]").replace(bare, "[host]"));
    }
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(arena.registry.take_counts().is_empty());
}

fn api_server(arena: &Arena) -> String {
    let text = std::fs::read_to_string(arena.cluster.kubeconfig()).expect("kubeconfig");
    let kubeconfig: Value = serde_json::from_str(&text).expect("JSON");
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str().expect("server");
    server.trim_start_matches("https://").to_owned()
}

#[tokio::test]
async fn the_api_server_is_no_registry_even_where_loopback_is_allowed() {
    let arena = Arena::open("tenancy-api-server").await;
    let by_address = api_server(&arena);
    let by_name = by_address.replace("127.0.0.1", "localhost");
    for (name, host, insecure) in [
        ("a", &by_address, false),
        ("b", &by_address, true),
        ("c", &by_name, false),
        ("d", &by_name, true),
    ] {
        let image = format!("{host}/{REPOSITORY}:1.0.0");
        arena
            .create(name, json!({ "image": image, "insecure": insecure }))
            .await;
        arena.not_ready(name, "AddressRefused").await;
    }
}

/// Specs that pass the schema, or nearly, and mean nothing good. None leads off this machine.
fn odd_specs() -> Vec<Value> {
    let long = "a/".repeat(250) + "b";
    let images = [
        "127.0.0.1:1/a",
        "127.0.0.1:0/a",
        "127.0.0.1:99999/a",
        "127.0.0.1:1/",
        "127.0.0.1:1//a",
        "127.0.0.1:1/a:",
        "127.0.0.1:1/a:b:c",
        "127.0.0.1:1/UPPER/Case",
        "127.0.0.1:1/a/../b",
        "127.0.0.1:1/a@sha256:0",
        "127.0.0.1:1/-a",
        "127.0.0.1:1/a_-_b",
        "a",
        "a:b",
        "A",
        ":",
        "/",
        "-",
        "a b",
        "a\u{0}b",
        "ä/b:1",
        "http://127.0.0.1:1/a",
        "user:password@127.0.0.1:1/a",
        long.as_str(),
        "",
    ];
    let mut specs: Vec<Value> = images.into_iter().map(spec).collect();
    let good = || spec("127.0.0.1:1/acme/policy");
    let more = [
        json!({ "interval": "0s" }),
        json!({ "interval": "-1s" }),
        json!({ "interval": "1e9h" }),
        json!({ "interval": "9999999h9999999h" }),
        json!({ "interval": "5s", "timeout": "10s" }),
        json!({ "timeout": "1ms" }),
        json!({ "semver": "not a range" }),
        json!({ "semver": ">=2 <1" }),
        json!({ "semver": "*" }),
        json!({ "semver": ">99999999999999999999999" }),
        json!({ "delivery": { "configMap": { "key": ".." } } }),
        json!({ "delivery": { "configMap": { "key": "k".repeat(253) } } }),
        json!({ "delivery": { "configMap": { "name": "kube-root-ca.crt" } } }),
        json!({ "delivery": { "configMap": { "labels": { "a/b/c": "d" } } } }),
        json!({ "delivery": { "configMap": { "annotations": { "a": "x".repeat(4096) } } } }),
        json!({ "verify": { "authorities": [] } }),
        json!({ "verify": { "minimumMatches": 2, "authorities": [{ "name": "a", "key": { "data": "-----BEGIN PUBLIC KEY-----" } }] } }),
        json!({ "verify": { "authorities": [{ "name": "a", "key": { "data": "-----BEGIN PUBLIC KEY-----" } }] } }),
        json!({ "tls": {} }),
        json!({ "surprise": true }),
    ];
    specs.extend(more.iter().map(|more| with(good(), more)));
    specs
}

/// D21.
#[tokio::test]
async fn odd_objects_neither_stop_the_operator_nor_hold_up_others() {
    let arena = Arena::with("tenancy-odd", &["--allow-registry", "127.0.0.1:*"]).await;
    arena.push("1.0.0", "one").await;
    let mut accepted = Vec::new();
    for (index, spec) in odd_specs().into_iter().enumerate() {
        let name = if index == 0 {
            "n".repeat(246)
        } else {
            format!("odd-{index}")
        };
        match arena
            .images()
            .create(&PostParams::default(), &manifest(&name, spec))
            .await
        {
            Ok(_) => accepted.push(name),
            Err(kube::Error::Api(status)) => assert!([400, 422].contains(&status.code), "{status:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    arena.deliver("healthy", arena.spec("1.0.0")).await;
    assert!(accepted.len() > 10, "{accepted:?}");
    for name in &accepted {
        let object = arena
            .until(name, "refused", |object| status_of(object, "Ready") == Some("False"))
            .await;
        assert_ne!(condition(&object, "Ready").reason, "Internal", "{name}");
    }
    arena.run_again("healthy").await;
    assert!(!arena.operator.log_text().contains("panicked"));
    assert!(super::metrics::value(&arena.operator, "policy_operator_panics_total").await < 1.0);
}
