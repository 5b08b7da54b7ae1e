use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use rstest::rstest;

use super::*;
use crate::domain::digest::Digest;
use crate::operator::identity::{MissingField, NamespacedName, ObjectKey};
use crate::pipeline::reason::{Classify as _, Disposition, Reason};

const UID: &str = "11111111-1111-1111-1111-111111111111";

fn target() -> ConfigMapDelivery {
    ConfigMapDelivery {
        owner: ObjectKey {
            object: NamespacedName::new("acme", "authz"),
            uid: UID.into(),
        },
        name: "authz-bundle".into(),
        key: "bundle.tar.gz".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn owner() -> OwnerReference {
    OwnerReference {
        api_version: "opcr.io/v1alpha1".into(),
        kind: "PolicyImage".into(),
        name: "authz".into(),
        uid: UID.into(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn owned_by(owners: Option<Vec<OwnerReference>>) -> ConfigMap {
    let metadata = ObjectMeta {
        uid: Some("uid".into()),
        resource_version: Some("7".into()),
        owner_references: owners,
        ..ObjectMeta::default()
    };
    let data = Some([("bundle.tar.gz".to_owned(), ByteString(b"bundle".to_vec()))].into());
    ConfigMap {
        metadata,
        binary_data: data,
        ..ConfigMap::default()
    }
}

/// D19.
#[rstest]
#[case::users(None)]
#[case::users_with_labels(Some(vec![]))]
#[case::other_policy_image(Some(vec![OwnerReference { name: "other".into(), uid: "2".into(), ..owner() }]))]
#[case::no_controller(Some(vec![OwnerReference { controller: None, ..owner() }]))]
#[case::denied_controller(Some(vec![OwnerReference { controller: Some(false), ..owner() }]))]
#[case::other_kind(Some(vec![OwnerReference { kind: "Deployment".into(), ..owner() }]))]
#[case::other_group(Some(vec![OwnerReference { api_version: "acme.example/v1".into(), ..owner() }]))]
#[case::group_with_our_beginning(Some(vec![OwnerReference { api_version: "opcr.io.acme.example/v1".into(), ..owner() }]))]
#[case::core_group(Some(vec![OwnerReference { api_version: "v1".into(), ..owner() }]))]
fn what_is_not_ours_is_foreign(#[case] owners: Option<Vec<OwnerReference>>) {
    let error = target().check_owner(owned_by(owners)).unwrap_err();
    assert!(
        matches!(&error, ObserveError::Foreign { name } if name == "authz-bundle"),
        "{error}"
    );
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::NotOwned, Disposition::Stalled)
    );
}

/// D19: whoever deletes an object and makes another of its name does not get what the first one owned.
#[test]
fn what_a_deleted_namesake_owns_is_not_ours() {
    let namesake = OwnerReference {
        uid: "earlier".into(),
        ..owner()
    };
    let error = target().check_owner(owned_by(Some(vec![namesake]))).unwrap_err();
    assert!(matches!(&error, ObserveError::Namesake { .. }), "{error}");
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::NotOwned, Disposition::WaitFor(Duration::from_secs(5)))
    );
}

#[test]
fn what_we_control_is_ours_whoever_else_owns_it() {
    let guest = OwnerReference {
        uid: "2".into(),
        controller: None,
        ..owner()
    };
    let newer = OwnerReference {
        api_version: "opcr.io/v1".into(),
        ..owner()
    };
    for owners in [vec![owner()], vec![guest, owner()], vec![newer]] {
        let found = target().check_owner(owned_by(Some(owners))).unwrap();
        assert_eq!(
            (
                found.version.uid.as_str(),
                found.version.resource_version.as_str(),
                found.immutable
            ),
            ("uid", "7", false)
        );
        assert_eq!(found.content, Some(Digest::of(b"bundle")));
    }
}

type Change = fn(&mut ConfigMap);

#[test]
fn content_beside_ours_or_under_another_key_is_no_content() {
    let changes: [Change; 4] = [
        |map| map.binary_data = None,
        |map| drop(map.data.get_or_insert_default().insert("more".into(), String::new())),
        |map| {
            drop(
                map.binary_data
                    .get_or_insert_default()
                    .insert("more".into(), ByteString(Vec::new())),
            );
        },
        |map| map.binary_data = Some([("other".to_owned(), ByteString(b"bundle".to_vec()))].into()),
    ];
    for change in changes {
        let mut map = owned_by(Some(vec![owner()]));
        change(&mut map);
        assert_eq!(target().check_owner(map.clone()).unwrap().content, None, "{map:?}");
    }
}

#[test]
fn what_cannot_be_named_in_a_precondition_is_not_written_to() {
    let mut map = owned_by(Some(vec![owner()]));
    map.metadata.resource_version = None;
    let error = target().check_owner(map).unwrap_err();
    assert!(
        matches!(
            &error,
            ObserveError::Identify {
                source: MissingField("resourceVersion"),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.disposition(), Disposition::Retry);
}
