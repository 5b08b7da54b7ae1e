use std::collections::BTreeMap;

use super::*;

fn existing() -> LiveConfigMap {
    LiveConfigMap {
        uid: "map".into(),
        resource_version: "7".into(),
        content: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        removal: None,
        immutable: false,
    }
}

fn state(uid: &str) -> ObjectState {
    let delivered = AppliedConfigMap {
        name: "authz-bundle".into(),
        key: "bundle.tar.gz".into(),
        existing: existing(),
    };
    ObjectState {
        uid: uid.into(),
        failures: 3,
        recheck: None,
        delivered: Some(delivered),
        last_good: None,
        answered: None,
    }
}

fn metadata(name: &str, uid: &str, version: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        uid: Some(uid.into()),
        resource_version: Some(version.into()),
        ..ObjectMeta::default()
    }
}

#[test]
fn an_object_is_recalled_and_its_namesakes_are_strangers() {
    let memory = StateCache::default();
    memory.keep("acme", "authz", state("1"));
    assert_eq!(memory.get("acme", "authz", "1").failures, 3);
    for (namespace, name, uid) in [("acme", "authz", "2"), ("other", "authz", "1"), ("acme", "other", "1")] {
        let recalled = memory.get(namespace, name, uid);
        assert_eq!(
            (recalled.uid.as_str(), recalled.failures, recalled.delivered),
            (uid, 0, None)
        );
    }
}

#[test]
fn forgetting_the_old_object_does_not_forget_the_new_one_of_its_name() {
    let memory = StateCache::default();
    memory.keep("acme", "authz", state("2"));
    memory.forget("acme", "authz", "1");
    assert_eq!(memory.get("acme", "authz", "2").failures, 3);
    memory.forget("acme", "authz", "2");
    assert_eq!(memory.get("acme", "authz", "2").failures, 0);
}

#[test]
fn only_the_very_version_that_we_wrote_is_ours() {
    let memory = StateCache::default();
    memory.keep("acme", "authz", state("1"));
    assert!(memory.wrote("acme", "authz", &metadata("authz-bundle", "map", "7")));
    assert!(!memory.wrote("acme", "authz", &metadata("authz-bundle", "map", "8")));
    assert!(!memory.wrote("acme", "authz", &metadata("other", "map", "7")));
    assert!(!memory.wrote("acme", "other", &metadata("authz-bundle", "map", "7")));
    assert!(!memory.wrote("acme", "authz", &ObjectMeta::default()));
}

fn target(name: &str, key: &str) -> Target {
    Target {
        namespace: "acme".into(),
        name: name.into(),
        key: key.into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        owner: crate::operator::reconcile::validate::Owner {
            name: "authz".into(),
            uid: "1".into(),
        },
    }
}

#[test]
fn an_object_is_left_alone_until_it_is_due_or_something_changed() {
    let now = Instant::now();
    let request = Request {
        generation: Some(3),
        requested_at: None,
    };
    let due = now + Duration::from_mins(5);
    let settled = ObjectState {
        answered: Some((request.clone(), due)),
        ..state("1")
    };
    let here = target("authz-bundle", "bundle.tar.gz");
    let seen = metadata("authz-bundle", "map", "7");
    let idle = |state: &ObjectState, request: &Request, seen: Option<&ObjectMeta>, now| {
        state.idle(request, Some(&here), seen, now).is_some()
    };
    assert!(idle(&settled, &request, Some(&seen), now));
    assert!(!idle(&settled, &request, Some(&seen), due + Duration::from_millis(1)));
    assert!(!idle(
        &settled,
        &request,
        Some(&metadata("authz-bundle", "map", "8")),
        now
    ));
    assert!(!idle(&settled, &request, None, now));
    assert!(!idle(&state("1"), &request, Some(&seen), now));
    for other in [(Some(4), None), (Some(3), Some("now".to_owned()))] {
        let other = Request {
            generation: other.0,
            requested_at: other.1,
        };
        assert!(!idle(&settled, &other, Some(&seen), now));
    }
}

#[test]
fn what_was_left_counts_for_the_same_target_and_version_only() {
    let here = target("authz-bundle", "bundle.tar.gz");
    let delivered = AppliedConfigMap::at(&here, existing());
    let seen = metadata("authz-bundle", "map", "7");
    assert!(delivered.is(&here, &seen));
    assert!(!delivered.is(&target("other", "bundle.tar.gz"), &seen));
    assert!(!delivered.is(&target("authz-bundle", "other"), &seen));
    assert!(!delivered.is(&here, &metadata("authz-bundle", "another", "7")));
    assert!(!delivered.is(&here, &metadata("authz-bundle", "map", "8")));
    assert!(!delivered.is(&here, &ObjectMeta::default()));
}
