use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::operator::delivery::config_map::testing::applied as config_map;
use crate::operator::identity::{NamespacedName, ObjectKey};

fn target() -> ConfigMapDelivery {
    ConfigMapDelivery {
        owner: ObjectKey {
            object: NamespacedName::new("acme", "authz"),
            uid: "1".into(),
        },
        name: "authz-bundle".into(),
        key: "bundle.tar.gz".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

/// The names of the previous ConfigMaps where status names `recorded` and this process wrote to `applied`.
fn previous(recorded: Option<&str>, applied: Option<&str>) -> Vec<String> {
    let status = recorded.map(|name| {
        serde_json::from_value(json!({ "delivery": { "configMap": { "name": name, "key": "k" } } })).unwrap()
    });
    let state = ConfigMapState {
        applied: applied.map(config_map),
        last_good: None,
        delivered: None,
    };
    let previous = previous_config_maps(&target(), status.as_ref(), &state);
    previous.into_iter().map(|previous| previous.name).collect()
}

#[test]
fn a_config_map_under_an_earlier_name_is_removed_whoever_remembers_it() {
    assert_eq!(previous(None, None), [""; 0]);
    assert_eq!(previous(Some("authz-bundle"), Some("authz-bundle")), [""; 0]);
    assert_eq!(previous(Some("old"), Some("authz-bundle")), ["old"]);
    assert_eq!(previous(Some("authz-bundle"), Some("old")), ["old"]);
    assert_eq!(previous(Some("old"), Some("old")), ["old"]);
    assert_eq!(previous(Some("old"), Some("older")), ["old", "older"]);
}

/// Status can be edited, and a name becomes a part of a path.
#[test]
fn what_is_no_name_of_a_config_map_is_not_removed() {
    for name in ["", "..", "../secrets/x", "a/b", "UPPER", "a?b=c"] {
        assert_eq!(previous(Some(name), None), [""; 0], "{name}");
    }
}
