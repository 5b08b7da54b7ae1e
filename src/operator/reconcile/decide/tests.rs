use serde_json::json;

use super::*;
use crate::domain::trust::TrustPolicy;
use crate::domain::trust::testing::{legacy, revision, signer, trusting};
use crate::operator::api::spec::PolicyImage;
use crate::operator::reconcile::dereference::References;
use crate::operator::reconcile::observe::LiveConfigMap;
use crate::operator::reconcile::validate::{OperatorOptions, validate};

/// All that is compared.
struct Case {
    plan: Plan,
    verified: Verified<Revision>,
    generation: Option<i64>,
    status: Option<PolicyImageStatus>,
    observed: Observed,
}

impl Case {
    /// Everything is as it should be.
    fn settled() -> Self {
        let object: PolicyImage = serde_json::from_value(json!({
            "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage",
            "metadata": { "name": "authz", "namespace": "acme", "uid": "1" },
            "spec": {
                "image": "registry.example/acme/policy:1.0",
                "delivery": { "configMap": { "labels": { "team": "acme" }, "annotations": { "note": "hello" } } },
            },
        }))
        .unwrap();
        let plan = validate(&object, &References::default(), OperatorOptions::default()).unwrap();
        let (pair, revision) = (signer(), revision(b"image"));
        let verified = trusting(&pair)
            .decide(&revision, &[legacy(&pair, &revision.digest)])
            .unwrap();
        let (bundle, digest) = (Digest::of(b"bundle"), revision.digest.to_string());
        let status = serde_json::from_value(json!({
            "observedGeneration": 3,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "source": { "reference": "x", "digest": digest, "shortDigest": "x" },
            "bundle": { "digest": bundle.to_string(), "size": 6, "revision": "", "roots": [""] },
            "verification": { "authorities": ["release"], "trustDigest": verified.verification().trust_digest().unwrap().to_string() },
            "delivery": { "configMap": { "name": "authz-bundle", "key": "bundle.tar.gz" } },
        }));
        let existing = LiveConfigMap {
            uid: "map".into(),
            resource_version: "7".into(),
            content: Some(bundle),
            labels: labels(&plan.target),
            annotations: annotations(&plan.target, &Revision::Image(revision), &bundle),
            removal: None,
            immutable: false,
        };
        Self {
            plan,
            verified: verified.into(),
            generation: Some(3),
            status: Some(status.unwrap()),
            observed: Observed::Ours(existing),
        }
    }

    fn decide(&self) -> Work {
        decide(
            &self.plan,
            &self.verified,
            self.generation,
            self.status.as_ref(),
            &self.observed,
        )
    }

    fn status(&mut self) -> &mut PolicyImageStatus {
        self.status.as_mut().unwrap()
    }

    fn existing(&mut self) -> &mut LiveConfigMap {
        let Observed::Ours(existing) = &mut self.observed else {
            unreachable!()
        };
        existing
    }
}

#[test]
fn where_all_is_as_it_should_be_nothing_is_done() {
    let mut case = Case::settled();
    assert_eq!(case.decide(), Work::Nothing);
    // What others put beside ours is theirs.
    case.existing().labels.insert("theirs".into(), "x".into());
    case.existing().annotations.insert("theirs".into(), "x".into());
    assert_eq!(case.decide(), Work::Nothing);
}

type Change = fn(&mut Case);

#[test]
fn each_single_difference_is_delivered() {
    let differences: [(&str, Change); 22] = [
        ("generation", |case| case.generation = Some(4)),
        ("no status", |case| case.status = None),
        ("observed generation", |case| case.status().observed_generation = None),
        ("not ready", |case| case.status().conditions[0].status = "False".into()),
        ("no conditions", |case| case.status().conditions.clear()),
        ("source", |case| {
            case.status().source.as_mut().unwrap().digest = Digest::of(b"other").to_string();
        }),
        ("no source", |case| case.status().source = None),
        ("bundle", |case| {
            case.status().bundle.as_mut().unwrap().digest = Digest::of(b"other").to_string();
        }),
        ("no bundle", |case| case.status().bundle = None),
        ("other keys", |case| {
            case.status().verification.as_mut().unwrap().trust_digest = "sha256:0".into();
        }),
        ("was not verified", |case| case.status().verification = None),
        ("is not verified any more", |case| {
            case.verified = TrustPolicy::NotConfigured
                .decide(&revision(b"image"), &[])
                .unwrap()
                .into();
        }),
        ("no delivery", |case| case.status().delivery = None),
        ("name", |case| case.plan.target.name = "other".into()),
        ("key", |case| case.plan.target.key = "other".into()),
        ("label", |case| {
            drop(case.plan.target.labels.insert("team".into(), "other".into()));
        }),
        ("annotation", |case| {
            drop(case.plan.target.annotations.insert("new".into(), String::new()));
        }),
        ("absent", |case| case.observed = Observed::Absent),
        ("content", |case| case.existing().content = Some(Digest::of(b"other"))),
        ("no content", |case| case.existing().content = None),
        ("our label", |case| {
            drop(case.existing().labels.remove(MANAGED_BY_LABEL));
        }),
        ("our annotations", |case| case.existing().annotations.clear()),
    ];
    for (name, change) in differences {
        let mut case = Case::settled();
        change(&mut case);
        assert_eq!(case.decide(), Work::Deliver, "{name}");
    }
}
