//! The harness against the programs it starts: each does what the tests that use it rely on.

use std::time::Duration;

use policy_operator_harness::cosign::{self, Format, Keys, Kind};
use policy_operator_harness::image::{Bundle, PolicyImage, Shape};
use policy_operator_harness::opa;
use policy_operator_harness::registry::{Credentials, Distribution, DistributionOptions, InProcess, InProcessOptions};
use policy_operator_harness::run_directory::RunDirectory;
use policy_operator_harness::tls::Authority;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);
const REGO: &[(&str, &str)] = &[
    ("policy.rego", "package app\n\nanswer := 42\n"),
    (".manifest", r#"{"roots":["app"]}"#),
];

fn alice() -> Credentials {
    Credentials {
        user: "alice".into(),
        password: "wonderland".into(),
    }
}

#[tokio::test]
async fn every_shape_is_stored_by_both_registries() {
    let distribution = Distribution::start(DistributionOptions::default()).await.unwrap();
    let in_process = InProcess::start(InProcessOptions::default()).await.unwrap();
    let bundle = Bundle::build(REGO, "r1").await.unwrap();
    for shape in Shape::ALL {
        let image = PolicyImage::new(bundle.clone()).shaped(shape);
        let one = image
            .push(distribution.endpoint(), "acme/policy", "1.0.0")
            .await
            .unwrap();
        let other = image.push(in_process.endpoint(), "acme/policy", "1.0.0").await.unwrap();
        assert_eq!((&one.digest, &one.layer_digest), (&other.digest, &bundle.digest()));
        assert_eq!(one.digest, other.digest);
        distribution
            .endpoint()
            .retag("acme/policy", &one.digest, "latest")
            .await
            .unwrap();
    }
    let counts = in_process.take_counts();
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), ["push"]);
}

#[tokio::test]
async fn opa_evaluates_both_kinds_of_bundle() {
    let directory = RunDirectory::new("bundles").unwrap();
    let built = directory
        .write("built.tar.gz", Bundle::build(REGO, "").await.unwrap().0)
        .unwrap();
    assert_eq!(opa::eval(&built, "data.app.answer").await.unwrap(), json!(42));
    let written = directory
        .write("written.tar.gz", Bundle::answering("yes").unwrap().0)
        .unwrap();
    assert_eq!(opa::eval(&written, "data.app.answer").await.unwrap(), json!("yes"));
}

#[tokio::test]
async fn opa_reloads_a_watched_bundle() {
    let directory = RunDirectory::new("watched").unwrap();
    let file = directory
        .write("bundle.tar.gz", Bundle::answering("old").unwrap().0)
        .unwrap();
    let server = opa::Server::watching(&file).await.unwrap();
    server.until_data("app/answer", &json!("old"), LIMIT).await.unwrap();
    let next = directory.write("next", Bundle::answering("new").unwrap().0).unwrap();
    std::fs::rename(next, &file).unwrap();
    server.until_data("app/answer", &json!("new"), LIMIT).await.unwrap();
}

#[tokio::test]
async fn opa_pulls_a_policy_image_and_tells_its_digest() {
    let registry = Distribution::start(DistributionOptions::default()).await.unwrap();
    let image = PolicyImage::new(Bundle::build(REGO, "").await.unwrap());
    let pushed = image.push(registry.endpoint(), "acme/policy", "1.0.0").await.unwrap();
    let server = opa::Server::pulling(registry.host(), &pushed.reference).await.unwrap();
    assert_eq!(server.active_digest(LIMIT).await.unwrap(), pushed.layer_digest);
    assert_eq!(server.data("app/answer").await.unwrap(), Some(json!(42)));
}

#[tokio::test]
async fn cosign_signs_with_every_kind_of_key_in_both_formats() {
    let registry = InProcess::start(InProcessOptions::default()).await.unwrap();
    let image = PolicyImage::new(Bundle::answering("yes").unwrap());
    let pushed = image.push(registry.endpoint(), "acme/policy", "1.0.0").await.unwrap();
    for kind in [Kind::P256, Kind::P384, Kind::Rsa, Kind::Ed25519] {
        let keys = Keys::generate(kind).await.unwrap();
        assert!(keys.public_pem.starts_with("-----BEGIN PUBLIC KEY-----"));
        for format in [Format::Bundle, Format::Legacy] {
            cosign::sign(&keys, registry.endpoint(), &pushed.pinned, format)
                .await
                .unwrap();
        }
    }
    let referrers = format!("acme/policy/referrers/{}", pushed.digest);
    let url = registry.endpoint().url(&referrers);
    let index: serde_json::Value = registry
        .endpoint()
        .client()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn distribution_asks_for_a_certificate_and_a_password() {
    let authority = Authority::new().unwrap();
    let options = DistributionOptions {
        tls: Some(&authority),
        credentials: Some(alice()),
        ..Default::default()
    };
    let registry = Distribution::start(options).await.unwrap();
    let endpoint = registry.endpoint();
    let anonymous = endpoint.client().get(endpoint.url("")).send().await.unwrap();
    assert_eq!(anonymous.status(), 401);
    let image = PolicyImage::new(Bundle::answering("yes").unwrap());
    let pushed = image.push(endpoint, "acme/policy", "1.0.0").await.unwrap();
    let keys = Keys::generate(Kind::P256).await.unwrap();
    cosign::sign(&keys, endpoint, &pushed.pinned, Format::Bundle)
        .await
        .unwrap();
    cosign::sign(&keys, endpoint, &pushed.pinned, Format::Legacy)
        .await
        .unwrap();
}

#[tokio::test]
async fn distribution_asks_for_a_client_certificate() {
    let authority = Authority::new().unwrap();
    let options = DistributionOptions {
        tls: Some(&authority),
        client_certificate: true,
        ..Default::default()
    };
    let registry = Distribution::start(options).await.unwrap();
    let image = PolicyImage::new(Bundle::answering("yes").unwrap());
    image.push(registry.endpoint(), "acme/policy", "1.0.0").await.unwrap();
    let certificate = reqwest::Certificate::from_pem(authority.certificate().as_bytes()).unwrap();
    let stranger = reqwest::Client::builder()
        .tls_certs_only([certificate])
        .no_proxy()
        .build()
        .unwrap();
    stranger.get(registry.endpoint().url("")).send().await.unwrap_err();
}

#[tokio::test]
async fn the_in_process_registry_asks_for_a_token_and_counts() {
    let options = InProcessOptions {
        token_user: Some(alice()),
        ..InProcessOptions::default()
    };
    let registry = InProcess::start(options).await.unwrap();
    let endpoint = registry.endpoint();
    let tags = endpoint
        .client()
        .get(endpoint.url("acme/policy/tags/list"))
        .send()
        .await
        .unwrap();
    let challenge = tags.headers()["www-authenticate"].to_str().unwrap();
    assert!(
        challenge.ends_with("scope=\"repository:acme/policy:pull\""),
        "{challenge}"
    );
    let counts = registry.take_counts();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("refused", 1), ("tags", 1)]);
}
