use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::operator::identity::is_identified;

fn metadata(metadata: &Value) -> ObjectMeta {
    let text = json!({ "metadata": metadata }).to_string();
    let received: Received<ConfigMap, MetadataOnly> = serde_json::from_str(&text).unwrap();
    received.metadata
}

fn identity() -> Value {
    json!({ "name": "app", "namespace": "acme", "uid": "1", "resourceVersion": "2" })
}

fn with(field: &str, value: Value) -> Value {
    let mut metadata = identity();
    metadata[field] = value;
    metadata
}

/// Times that an API server accepts and that have no place in the types of a client.
#[rstest]
#[case::year("9999-12-31T23:59:59Z")]
#[case::fraction("2026-01-01T00:00:00.123456789012Z")]
#[case::offset("2026-01-01T00:00:00+99:59")]
#[case::no_time("yesterday")]
fn no_time_makes_an_object_unreadable(#[case] time: &str) {
    let text = json!({ "metadata": with("managedFields", json!([{ "manager": "acme", "time": time }])) }).to_string();
    serde_json::from_str::<ConfigMap>(&text).expect_err("the type of the client");
    for field in ["creationTimestamp", "deletionTimestamp"] {
        assert!(is_identified(&metadata(&with(field, json!(time)))), "{field}");
    }
    let managers = metadata(&with("managedFields", json!([{ "manager": "acme", "time": time }])));
    let managers: Vec<_> = managers
        .managed_fields
        .unwrap()
        .into_iter()
        .map(|entry| entry.manager)
        .collect();
    assert_eq!(managers, [Some("acme".to_owned())]);
}

#[test]
fn whether_an_object_is_being_deleted_is_seen_whatever_the_time() {
    let deleted = |metadata: ObjectMeta| metadata.deletion_timestamp.is_some();
    assert!(deleted(metadata(&with(
        "deletionTimestamp",
        json!("9999-12-31T23:59:59Z")
    ))));
    assert!(!deleted(metadata(&identity())));
}

#[test]
fn managed_fields_may_be_nested_deeper_than_a_decoder_goes() {
    let fields = format!("{}{}", "{\"f:a\":".repeat(1000), "{}".to_owned() + &"}".repeat(1000));
    let text = format!(
        r#"{{"type":"ADDED","object":{{"metadata":{{"name":"app","managedFields":[{{"manager":"acme","fieldsV1":{fields}}}]}}}}}}"#
    );
    let event: kube::core::WatchEvent<Received<ConfigMap, MetadataOnly>> = serde_json::from_str(&text).unwrap();
    let kube::core::WatchEvent::Added(received) = event else {
        panic!("{event:?}");
    };
    assert_eq!(received.metadata.name.as_deref(), Some("app"));
}

#[rstest]
#[case::name("name")]
#[case::namespace("namespace")]
#[case::uid("uid")]
#[case::version("resourceVersion")]
fn who_does_not_say_who_it_is_is_told_apart(#[case] field: &str) {
    assert!(is_identified(&metadata(&identity())));
    for wrong in [json!(5), json!(null), json!({ "a": [1] }), json!("")] {
        assert!(!is_identified(&metadata(&with(field, wrong.clone()))), "{wrong}");
    }
}

#[test]
fn a_field_that_is_wrong_does_not_take_the_others_along() {
    let mut wrong = identity();
    for field in ["labels", "annotations", "ownerReferences", "generation"] {
        wrong[field] = json!("no");
    }
    assert!(is_identified(&metadata(&wrong)));
    let owner = json!({
        "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage", "name": "app", "uid": "1", "controller": true,
    });
    let owners = metadata(&with("ownerReferences", json!([5, owner])));
    assert_eq!(owners.owner_references.unwrap().len(), 1);
    let annotations = metadata(&with("annotations", json!({ "a": "b", "c": 5 })));
    assert_eq!(
        annotations.annotations.unwrap(),
        [("a".to_owned(), "b".to_owned())].into()
    );
}

#[test]
fn of_long_lists_only_what_is_used_is_kept() {
    let texts: BTreeMap<String, String> = (0..2000)
        .map(|number| (format!("key-{number}"), String::new()))
        .collect();
    let owner = |number: usize| {
        json!({
            "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage", "name": "app", "uid": number.to_string(),
            "controller": number == 1500,
        })
    };
    let mut object = identity();
    object["labels"] = json!(texts);
    object["annotations"] = json!(texts);
    object["ownerReferences"] = (0..2000).map(owner).collect();
    object["managedFields"] = (0..2000)
        .map(|_| json!({ "manager": "acme", "fieldsV1": {} }))
        .collect();
    let read = metadata(&object);
    assert!(is_identified(&read));
    let uids: Vec<_> = read
        .owner_references
        .iter()
        .flatten()
        .map(|owner| owner.uid.as_str())
        .collect();
    assert_eq!(uids, ["1500"]);
    assert_eq!(
        (read.labels.unwrap().len(), read.annotations.unwrap().len()),
        (512, 512)
    );
    assert_eq!(read.managed_fields.unwrap().len(), 64);
}

#[test]
fn an_object_shows_nothing_of_its_body_when_it_is_printed() {
    #[derive(Deserialize, Clone)]
    struct Whole {
        #[serde(rename = "data")]
        _data: Value,
    }
    impl Body for Whole {}
    let text = json!({ "metadata": identity(), "data": { "password": "canary" } }).to_string();
    let received: Received<ConfigMap, Whole> = serde_json::from_str(&text).unwrap();
    assert_eq!(format!("{received:?}"), "Received(Some(\"acme\"), Some(\"app\"))");
}
