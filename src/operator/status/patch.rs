//! The smallest patch that leads from one status to the next. Pure.

use kube::api::PatchParams;
use serde_json::{Map, Value, json};

use crate::operator::api::FIELD_MANAGER;
use crate::operator::api::status::PolicyImageStatus;

/// The merge patch for the object with this UID that turns `old` into `new`; none where they are equal.
///
/// The UID keeps it from an object that was created since under the same name. The resource version is not a
/// precondition: a client that changes a label every second would keep the object without any condition. Conditions
/// carry the generation that they describe.
///
/// # Errors
/// [`serde_json::Error`], which a status never gives.
pub(super) fn merge_patch(
    uid: &str,
    old: &PolicyImageStatus,
    new: &PolicyImageStatus,
) -> Result<Option<Value>, serde_json::Error> {
    let (old, new) = (serde_json::to_value(old)?, serde_json::to_value(new)?);
    let patch = |difference| json!({ "metadata": { "uid": uid }, "status": difference });
    Ok(difference(&old, &new).map(patch))
}

/// The parameters of the patch.
pub(super) fn parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// The JSON merge patch (RFC 7396) that leads from `old` to `new`; none where they are equal.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        _ if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let removed = old
                .keys()
                .filter(|key| !new.contains_key(*key))
                .map(|key| (key.clone(), Value::Null));
            let changed = new.iter().filter_map(|(key, value)| {
                difference(old.get(key).unwrap_or(&Value::Null), value).map(|patch| (key.clone(), patch))
            });
            Some(Value::Object(removed.chain(changed).collect::<Map<_, _>>()))
        }
        _ => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::equal(json!({"a": 1}), json!({"a": 1}), None)]
    #[case::added(json!({}), json!({"a": 1}), Some(json!({"a": 1})))]
    #[case::removed(json!({"a": 1, "b": 2}), json!({"b": 2}), Some(json!({"a": null})))]
    #[case::nested(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1, "d": 3}}), Some(json!({"a": {"c": null, "d": 3}})))]
    #[case::lists_are_whole(json!({"a": [1, 2]}), json!({"a": [1]}), Some(json!({"a": [1]})))]
    fn a_merge_patch_holds_only_the_difference(#[case] old: Value, #[case] new: Value, #[case] patch: Option<Value>) {
        assert_eq!(difference(&old, &new), patch);
    }
}
