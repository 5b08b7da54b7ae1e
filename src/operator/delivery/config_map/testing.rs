//! ConfigMaps for tests of whatever remembers them.

use super::live::LiveConfigMap;
use super::state::ConfigMapStates;
use super::target::ConfigMapDelivery;
use crate::operator::identity::{NamespacedName, ObjectKey, ObjectVersion};

/// The ConfigMap `name` of the object `authz` in namespace `acme`.
pub(crate) fn target(name: &str) -> ConfigMapDelivery {
    let owner = ObjectKey {
        object: NamespacedName::new("acme", "authz"),
        uid: "1".into(),
    };
    ConfigMapDelivery {
        key: "bundle.tar.gz".to_owned(),
        ..ConfigMapDelivery::named(owner, name)
    }
}

/// The state after a run that left the ConfigMap `name` with UID `map` in version 7.
pub(crate) fn delivered_to(name: &str) -> ConfigMapStates {
    let live = LiveConfigMap {
        version: ObjectVersion {
            uid: "map".into(),
            resource_version: "7".to_owned(),
        },
        content: None,
        names_owner: true,
        labels: Vec::new(),
        annotations: Vec::new(),
        removal: None,
        immutable: false,
        creation: None,
    };
    let mut states = ConfigMapStates::default();
    states.record(&target(name), live);
    states
}
