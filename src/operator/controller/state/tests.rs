use super::*;
use crate::operator::delivery::config_map::testing;

fn key(namespace: &str, name: &str, uid: &str) -> ObjectKey {
    ObjectKey {
        object: NamespacedName::new(namespace, name),
        uid: uid.into(),
    }
}

fn failures(count: u32) -> ObjectState {
    ObjectState {
        failures: count,
        ..ObjectState::default()
    }
}

#[test]
fn an_object_has_its_state_and_its_namesakes_have_none() {
    let states = StateCache::default();
    states.put(&key("acme", "authz", "1"), failures(3));
    assert_eq!(states.get(&key("acme", "authz", "1")).failures, 3);
    for other in [
        key("acme", "authz", "2"),
        key("other", "authz", "1"),
        key("acme", "other", "1"),
    ] {
        assert_eq!(states.get(&other).failures, 0);
    }
}

#[test]
fn an_object_that_is_made_again_replaces_the_state_of_the_old_one() {
    let states = StateCache::default();
    let (old, new) = (key("acme", "authz", "1"), key("acme", "authz", "2"));
    states.put(&old, failures(3));
    states.put(&new, failures(1));
    assert_eq!((states.get(&old).failures, states.get(&new).failures), (0, 1));
    states.forget(&NamespacedName::new("acme", "authz"));
    assert_eq!(states.get(&new).failures, 0);
}

fn delivered_to(config_map: &str) -> ObjectState {
    ObjectState {
        config_maps: testing::delivered_to(config_map),
        ..ObjectState::default()
    }
}

#[test]
fn a_config_map_leads_to_the_object_that_delivered_to_it_last() {
    let states = StateCache::default();
    let object = key("acme", "authz", "1");
    let leads = |config_map| {
        let object = states.deliverer(&NamespacedName::new("acme", config_map))?;
        Some(object.name.to_string())
    };
    states.put(&object, delivered_to("one"));
    assert_eq!((leads("one").as_deref(), leads("two")), (Some("authz"), None));
    assert_eq!(states.deliverer(&NamespacedName::new("other", "one")), None);
    states.put(&object, delivered_to("two"));
    assert_eq!((leads("one"), leads("two").as_deref()), (None, Some("authz")));
    states.put(&key("acme", "rival", "2"), delivered_to("two"));
    states.forget(&NamespacedName::new("acme", "authz"));
    assert_eq!(leads("two").as_deref(), Some("rival"), "what another took over stays");
}
