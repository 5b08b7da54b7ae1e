//! From a policy image to the ConfigMap, and how changes of either are followed.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use rstest::rstest;
use serde_json::{Value, json};

use super::metrics::until_runs;
use super::{Arena, REPOSITORY, bundle_in, bytes, condition, spec, status_of, text, with};

#[rstest]
#[case::tag(":1.0.0", Value::Null, "1.0.0")]
#[case::digest("@DIGEST", Value::Null, "")]
#[case::tag_and_digest(":1.0.0@DIGEST", Value::Null, "")]
#[case::range("", json!("1.x"), "1.0.0")]
#[tokio::test]
async fn every_way_to_name_an_image_is_delivered(#[case] suffix: &str, #[case] semver: Value, #[case] tag: &str) {
    let arena = Arena::open("delivery-source").await;
    let pushed = arena.push("1.0.0", "one").await;
    arena.push("2.0.0", "two").await;
    let repository = format!("{}/{REPOSITORY}", arena.registry.host());
    let image = format!("{repository}{}", suffix.replace("DIGEST", &pushed.digest));
    let object = arena
        .deliver("app", with(spec(&image), &json!({ "semver": semver })))
        .await;
    assert_eq!(arena.bundle("app").await, bytes("one"));
    let reference = if tag.is_empty() {
        repository
    } else {
        format!("{repository}:{tag}")
    };
    assert_eq!(text(&object, "/status/source/reference"), reference);
    assert_eq!(text(&object, "/status/source/digest"), pushed.digest);
    let by_range = if semver.is_null() { "" } else { "1.0.0" };
    assert_eq!(text(&object, "/status/source/semverTag"), by_range);
}

#[tokio::test]
async fn the_first_delivery_says_what_it_did_and_writes_each_thing_once() {
    let arena = Arena::open("delivery-first").await;
    let pushed = arena.push("1.0.0", "one").await;
    let delivery =
        json!({ "configMap": { "labels": { "team": "acme" }, "annotations": { "acme.example/why": "test" } } });
    let object = arena
        .deliver("app", with(arena.spec("1.0.0"), &json!({ "delivery": delivery })))
        .await;
    let status = |kind| condition(&object, kind).status;
    assert_eq!(
        [status("Ready"), status("Verified"), status("Delivered")],
        ["True", "False", "True"]
    );
    insta::assert_json_snapshot!(object.data["status"], {
        ".conditions[].lastTransitionTime" => "[time]",
        ".conditions[].message" => insta::dynamic_redaction(|message, _| {
            assert!(message.as_str().is_some_and(|message| !message.is_empty()));
            "[message]"
        }),
        ".source.reference" => "[reference]",
    });
    assert_owned_and_marked(&arena.config_map("app-bundle").await, &object, &pushed.pinned);
    // Anything that the first run left behind to do would be done by now.
    arena.run_again("app").await;
    let events = arena.events("app").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0][..2], ["Normal", "Succeeded"]);
    assert_eq!(
        writes(&arena),
        [("configmaps", 1), ("events", 1), ("policyimages/status", 2)]
    );
}

fn writes(arena: &Arena) -> Vec<(&'static str, usize)> {
    let counts = arena.writes();
    let known = ["configmaps", "events", "policyimages/status"];
    assert!(
        counts.keys().all(|resource| known.contains(&resource.as_str())),
        "{counts:?}"
    );
    known
        .into_iter()
        .map(|resource| (resource, counts.get(resource).copied().unwrap_or_default()))
        .collect()
}

fn assert_owned_and_marked(config_map: &ConfigMap, object: &DynamicObject, pinned: &str) {
    assert_eq!(bundle_in(config_map), bytes("one"));
    let owner = &config_map.owner_references()[0];
    assert_eq!(
        (&owner.kind, &owner.name, owner.controller),
        (&"PolicyImage".to_owned(), &"app".to_owned(), Some(true))
    );
    assert_eq!(Some(&owner.uid), object.metadata.uid.as_ref());
    assert_eq!(owner.block_owner_deletion, None);
    let labels = [("app.kubernetes.io/managed-by", "policy-operator"), ("team", "acme")];
    assert_eq!(pairs(config_map.labels()), labels);
    let digest = text(object, "/status/bundle/digest");
    let annotations = [
        ("acme.example/why", "test"),
        ("opcr.io/bundle-digest", digest),
        ("opcr.io/source", pinned),
    ];
    assert_eq!(pairs(config_map.annotations()), annotations);
}

fn pairs(map: &std::collections::BTreeMap<String, String>) -> Vec<(&str, &str)> {
    map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn an_idle_object_writes_nothing_and_a_request_only_its_answer() {
    let arena = Arena::open("delivery-idle").await;
    arena.push("1.0.0", "one").await;
    arena
        .deliver("app", with(arena.spec("1.0.0"), &json!({ "interval": "5s" })))
        .await;
    arena.run_again("app").await;
    let before = arena.writes();
    until_runs(&arena.operator, "Succeeded", 1).await;
    assert_eq!(arena.writes(), before);
    arena.run_again("app").await;
    let mut after = before.clone();
    *after.entry("policyimages/status".to_owned()).or_default() += 1;
    assert_eq!(arena.writes(), after);
}

#[tokio::test]
async fn a_moved_tag_is_followed_at_the_interval() {
    let arena = Arena::open("delivery-poll").await;
    arena.push("latest", "one").await;
    arena
        .deliver("app", with(arena.spec("latest"), &json!({ "interval": "5s" })))
        .await;
    let moved = arena.push("latest", "two").await;
    arena.delivers("app", &moved.digest).await;
    assert_eq!(arena.bundle("app").await, bytes("two"));
    arena.until_event("app", &moved.digest[7..19]).await;
    assert_eq!(arena.events("app").await.len(), 2, "a new digest is news");
}

#[tokio::test]
async fn a_range_takes_the_highest_tag_and_follows_a_higher_one_when_asked() {
    let arena = Arena::open("delivery-range").await;
    for (tag, answer) in [
        ("1.2.0", "a"),
        ("1.10.0", "b"),
        ("1.9.3", "c"),
        ("2.0.0", "d"),
        ("1.11.0-rc.1", "e"),
    ] {
        arena.push(tag, answer).await;
    }
    let image = format!("{}/{REPOSITORY}", arena.registry.host());
    let object = arena
        .deliver("app", with(spec(&image), &json!({ "semver": ">=1.2.0 <2.0.0" })))
        .await;
    assert_eq!(text(&object, "/status/source/semverTag"), "1.10.0");
    let higher = arena.push("1.12.0", "f").await;
    arena.run_again("app").await;
    let object = arena.delivers("app", &higher.digest).await;
    assert_eq!(text(&object, "/status/source/semverTag"), "1.12.0");
    assert_eq!(arena.bundle("app").await, bytes("f"));
}

#[tokio::test]
async fn a_range_that_no_tag_satisfies_says_so() {
    let arena = Arena::open("delivery-no-match").await;
    arena.push("1.0.0", "one").await;
    let image = format!("{}/{REPOSITORY}", arena.registry.host());
    arena
        .create("app", with(spec(&image), &json!({ "semver": "2.x" })))
        .await;
    let object = arena.not_ready("app", "NoMatchingTag").await;
    assert_eq!(condition(&object, "Delivered").status, "False");
}

#[tokio::test]
async fn a_change_of_the_target_is_followed_and_nothing_is_left_behind() {
    let arena = Arena::open("delivery-target").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("app", arena.spec("1.0.0")).await;
    let target = json!({ "name": "policy", "labels": { "a": "1", "b": "1" }, "annotations": { "c": "1" } });
    arena
        .patch("app", json!({ "spec": { "delivery": { "configMap": target } } }))
        .await;
    arena.ready("app").await;
    arena
        .until_config_map("app-bundle", "is gone", |found| found.is_none())
        .await;
    assert_eq!(bundle_in(&arena.config_map("policy").await), bytes("one"));

    let target = json!({ "key": "policy.tar.gz", "labels": { "a": "2", "b": null }, "annotations": null });
    arena
        .patch("app", json!({ "spec": { "delivery": { "configMap": target } } }))
        .await;
    let object = arena.ready("app").await;
    let config_map = arena.config_map("policy").await;
    assert_eq!(
        pairs(config_map.labels()),
        [("a", "2"), ("app.kubernetes.io/managed-by", "policy-operator")]
    );
    assert!(!config_map.annotations().contains_key("c"));
    let data = config_map.binary_data.expect("binaryData");
    assert_eq!(data.keys().collect::<Vec<_>>(), ["policy.tar.gz"]);
    assert_eq!(data["policy.tar.gz"].0, bytes("one"));
    assert_eq!(text(&object, "/status/delivery/configMap/key"), "policy.tar.gz");
}

#[tokio::test]
async fn a_suspended_object_is_left_alone_until_it_is_resumed() {
    let arena = Arena::open("delivery-suspend").await;
    arena.push("latest", "one").await;
    arena
        .deliver("app", with(arena.spec("latest"), &json!({ "interval": "5s" })))
        .await;
    arena.patch("app", json!({ "spec": { "suspend": true } })).await;
    let object = arena
        .until("app", "suspended", |object| {
            status_of(object, "Ready") == Some("Unknown")
        })
        .await;
    assert_eq!(condition(&object, "Ready").reason, "Suspended");
    assert_eq!(condition(&object, "Delivered").status, "True");
    let moved = arena.push("latest", "two").await;
    drop(arena.registry.take_counts());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(
        arena.registry.take_counts().is_empty(),
        "nobody asks while it is suspended"
    );
    assert_eq!(arena.bundle("app").await, bytes("one"));
    arena.patch("app", json!({ "spec": { "suspend": false } })).await;
    arena.delivers("app", &moved.digest).await;
    assert_eq!(arena.bundle("app").await, bytes("two"));
}
