use super::*;
use crate::domain::reference::ImageReference;
use crate::domain::revision::ImageRevision;
use crate::operator::api::MANAGED_BY_LABEL;
use crate::operator::identity::{NamespacedName, ObjectKey};

/// All that is compared.
struct Case {
    target: ConfigMapDelivery,
    revision: Revision,
    bundle: Digest,
    live: LiveConfigMap,
}

impl Case {
    /// Everything is as it should be.
    fn up_to_date() -> Self {
        let text = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let target = ConfigMapDelivery {
            owner: ObjectKey {
                object: NamespacedName::new("acme", "authz"),
                uid: "1".into(),
            },
            name: "authz-bundle".into(),
            key: "bundle.tar.gz".into(),
            labels: text("team", "acme"),
            annotations: text("note", "hello"),
        };
        let image: ImageReference = "registry.example/acme/policy:1.0".parse().unwrap();
        let revision = Revision::Image(ImageRevision {
            repository: image.repository().clone(),
            digest: Digest::of(b"image"),
            tag: None,
        });
        let bundle = Digest::of(b"bundle");
        let live = LiveConfigMap {
            version: ObjectVersion {
                uid: "map".into(),
                resource_version: "7".into(),
            },
            content: Some(bundle),
            names_owner: true,
            labels: target.all_labels().into_iter().collect(),
            annotations: target.all_annotations(&revision, &bundle).into_iter().collect(),
            removal: None,
            immutable: false,
            creation: None,
        };
        Self {
            target,
            revision,
            bundle,
            live,
        }
    }

    fn holds(&self) -> bool {
        self.live.holds(&self.target, &self.revision, &self.bundle)
    }
}

#[test]
fn where_all_is_as_it_should_be_nothing_is_done() {
    let mut case = Case::up_to_date();
    assert!(case.holds());
    // What others put beside ours is theirs.
    case.live.labels.push(("theirs".into(), "x".into()));
    case.live.annotations.push(("theirs".into(), "x".into()));
    assert!(case.holds());
}

type Change = fn(&mut Case);

#[test]
fn each_single_difference_is_delivered() {
    let differences: [(&str, Change); 9] = [
        ("owner", |case| case.live.names_owner = false),
        ("image", |case| {
            let Revision::Image(image) = &mut case.revision;
            image.digest = Digest::of(b"other");
        }),
        ("bundle", |case| case.bundle = Digest::of(b"other")),
        ("label", |case| {
            drop(case.target.labels.insert("team".into(), "other".into()));
        }),
        ("annotation", |case| {
            drop(case.target.annotations.insert("new".into(), String::new()));
        }),
        ("content", |case| case.live.content = Some(Digest::of(b"other"))),
        ("no content", |case| case.live.content = None),
        ("our label", |case| {
            case.live.labels.retain(|(key, _)| key != MANAGED_BY_LABEL);
        }),
        ("our annotations", |case| case.live.annotations.clear()),
    ];
    for (name, change) in differences {
        let mut case = Case::up_to_date();
        change(&mut case);
        assert!(!case.holds(), "{name}");
    }
}
