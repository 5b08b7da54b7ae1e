use std::sync::Mutex;

use http::{Request, Response};
use kube::client::Body as RequestBody;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// An API server that gives `answer` to every request, and what it was asked.
fn server(status: u16, answer: &Value) -> (ClusterObjects, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noted, answer) = (Arc::clone(&asked), answer.to_string());
    let service = service_fn(move |request: Request<RequestBody>| {
        noted.lock().unwrap().push(request.uri().path().to_owned());
        let response = Response::builder().status(status);
        let response = response.body(RequestBody::from(answer.clone().into_bytes()));
        async move { response }
    });
    (ClusterObjects::new(Client::new(service, "default")), asked)
}

/// What only a client's own types would trip over.
fn hostile_metadata() -> Value {
    json!({ "name": "pull", "namespace": "acme", "managedFields": [{ "time": "9999-12-31T23:59:59Z" }] })
}

#[tokio::test]
async fn nothing_but_the_keys_that_are_needed_is_read() {
    let data = json!({ "key": "dmFsdWU=", "other": "b3RoZXI=" });
    let (objects, _) = server(200, &json!({ "metadata": hostile_metadata(), "data": data }));
    let found = objects
        .as_of(Freshness::recent())
        .secret("acme", "pull", &["key", "absent"])
        .await
        .unwrap();
    assert_eq!(found, Some([("key".to_owned(), b"value".to_vec())].into()));

    let data = json!({ "key": "value", "other": "other" });
    let (objects, _) = server(200, &json!({ "metadata": hostile_metadata(), "data": data }));
    let found = objects
        .as_of(Freshness::recent())
        .config_map("acme", "keys", &["key"])
        .await
        .unwrap();
    assert_eq!(found, Some([("key".to_owned(), b"value".to_vec())].into()));

    let secrets = json!([{ "name": "one" }, { "name": "two" }]);
    let (objects, _) = server(
        200,
        &json!({ "metadata": hostile_metadata(), "imagePullSecrets": secrets }),
    );
    let found = objects
        .as_of(Freshness::recent())
        .service_account("acme", "puller")
        .await
        .unwrap();
    assert_eq!(found, Some(vec!["one".to_owned(), "two".to_owned()]));
}

#[tokio::test]
async fn an_object_is_read_once_for_each_set_of_keys() {
    let data = json!({ "a": "MQ==", "b": "Mg==" });
    let (objects, asked) = server(200, &json!({ "metadata": hostile_metadata(), "data": data }));
    for key in ["a", "a", "b"] {
        let found = objects
            .as_of(Freshness::recent())
            .secret("acme", "pull", &[key])
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [key]);
    }
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn no_more_is_kept_than_the_cache_may_weigh() {
    let value = "A".repeat(1 << 20);
    let (objects, _) = server(
        200,
        &json!({ "metadata": hostile_metadata(), "data": { "key": value } }),
    );
    for number in 0..20 {
        let name = format!("keys-{number}");
        let found = objects
            .as_of(Freshness::recent())
            .config_map("acme", &name, &["key"])
            .await
            .unwrap();
        assert_eq!(found.unwrap()["key"].len(), 1 << 20);
    }
    let kept = objects.config_maps.weight().await;
    assert!(kept > 1 << 20 && kept <= CAPACITY_BYTES, "{kept} bytes");
}

#[tokio::test]
async fn what_cannot_be_decoded_is_the_fault_of_that_object_and_is_not_repeated() {
    let (objects, _) = server(
        200,
        &json!({ "metadata": hostile_metadata(), "data": { "key": "canary!" } }),
    );
    let error = objects
        .as_of(Freshness::recent())
        .secret("acme", "pull", &["key"])
        .await
        .unwrap_err();
    assert!(matches!(&error, ReadError::Decode(_)), "{error:?}");
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[tokio::test]
async fn a_refusal_and_an_outage_are_told_apart() {
    let status = |code: u16, reason: &str| json!({ "kind": "Status", "status": "Failure", "message": "no", "code": code, "reason": reason });
    let (objects, _) = server(403, &status(403, "Forbidden"));
    let error = objects
        .as_of(Freshness::recent())
        .secret("acme", "pull", &["key"])
        .await
        .unwrap_err();
    assert!(matches!(error, ReadError::Forbid(_)), "{error:?}");
    let (objects, _) = server(500, &status(500, "InternalError"));
    let error = objects
        .as_of(Freshness::recent())
        .secret("acme", "pull", &["key"])
        .await
        .unwrap_err();
    assert!(matches!(error, ReadError::Temporary(_)), "{error:?}");
    let (objects, _) = server(404, &status(404, "NotFound"));
    assert_eq!(
        objects
            .as_of(Freshness::recent())
            .secret("acme", "pull", &["key"])
            .await
            .unwrap(),
        None
    );
}
