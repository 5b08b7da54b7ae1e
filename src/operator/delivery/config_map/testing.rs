//! ConfigMaps for tests of whatever remembers them.

use std::collections::BTreeMap;

use super::live::LiveConfigMap;
use super::state::AppliedConfigMap;
use crate::operator::identity::ObjectVersion;

/// The ConfigMap `name` with UID `map` and version 7, as a run left it.
pub(crate) fn applied(name: &str) -> AppliedConfigMap {
    AppliedConfigMap {
        name: name.to_owned(),
        key: "bundle.tar.gz".to_owned(),
        live: LiveConfigMap {
            version: ObjectVersion {
                uid: "map".into(),
                resource_version: "7".to_owned(),
            },
            content: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            removal: None,
            immutable: false,
        },
    }
}
