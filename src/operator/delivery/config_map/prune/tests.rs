use serde_json::json;

use super::*;
use crate::operator::delivery::config_map::testing::{delivered_to, target};

/// The names of the previous ConfigMaps of an object that delivers to `targets`, where status names `recorded` and this
/// process wrote to `applied`.
fn previous_names(targets: &[&str], recorded: Option<&str>, applied: Option<&str>) -> Vec<String> {
    let recorded =
        recorded.map(|name| serde_json::from_value(json!({ "configMap": { "name": name, "key": "k" } })).unwrap());
    let states = applied.map(delivered_to).unwrap_or_default();
    let targets: Vec<_> = targets.iter().map(|name| target(name)).collect();
    let targets: Vec<_> = targets.iter().collect();
    let owner = target("any").owner;
    let previous = previous(&owner, &targets, recorded.as_ref(), &states);
    previous.into_iter().map(|previous| previous.name).collect()
}

#[test]
fn a_config_map_under_an_earlier_name_is_removed_whoever_remembers_it() {
    let previous = |recorded, applied| previous_names(&["authz-bundle"], recorded, applied);
    assert_eq!(previous(None, None), [""; 0]);
    assert_eq!(previous(Some("authz-bundle"), Some("authz-bundle")), [""; 0]);
    assert_eq!(previous(Some("old"), Some("authz-bundle")), ["old"]);
    assert_eq!(previous(Some("authz-bundle"), Some("old")), ["old"]);
    assert_eq!(previous(Some("old"), Some("old")), ["old"]);
    assert_eq!(previous(Some("old"), Some("older")), ["old", "older"]);
}

#[test]
fn no_target_of_a_plan_is_the_previous_one_of_another() {
    let targets = ["one", "two"];
    assert_eq!(previous_names(&targets, Some("one"), Some("two")), [""; 0]);
    assert_eq!(previous_names(&targets, Some("two"), Some("one")), [""; 0]);
    assert_eq!(previous_names(&targets, Some("old"), Some("one")), ["old"]);
}

/// Status can be edited, and a name becomes a part of a path.
#[test]
fn what_is_no_name_of_a_config_map_is_not_removed() {
    for name in ["", "..", "../secrets/x", "a/b", "UPPER", "a?b=c"] {
        assert_eq!(previous_names(&["authz-bundle"], Some(name), None), [""; 0], "{name}");
    }
}
