use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::duration::{DEFAULT_INTERVAL, DEFAULT_TIMEOUT};
use super::*;
use crate::domain::trust::testing::{authority, pem, signer};
use crate::operator::api::spec::NameReference;
use crate::operator::identity::NamespacedName;

fn object(spec: &Value) -> PolicyImage {
    serde_json::from_value(json!({
        "apiVersion": "opcr.io/v1alpha1",
        "kind": "PolicyImage",
        "metadata": { "name": "authz", "namespace": "acme", "uid": "1" },
        "spec": spec,
    }))
    .unwrap()
}

/// A good object that uses every field, and what it names.
fn good() -> (PolicyImage, References) {
    let key = pem(&signer());
    let object = object(&json!({
        "image": "registry.acme.example:5000/policies/authz",
        "semver": "1.x",
        "imagePullSecrets": [{ "name": "pull" }],
        "tls": { "caRef": { "configMapRef": { "name": "ca", "key": "ca.crt" } }, "certSecretRef": { "name": "client" } },
        "verify": { "minimumMatches": 1, "authorities": [{ "name": "release", "key": { "data": key } }] },
        "interval": "1h30m",
        "timeout": "90s",
        "delivery": { "configMap": {
            "name": "policy", "key": "policy.tar.gz", "labels": { "team": "acme" }, "annotations": { "note": "hello" },
        } },
    }));
    let references = References {
        pull_secrets: vec![("pull".into(), PULL_SECRET.as_bytes().to_vec())],
        authority_certificates: Some("ca".into()),
        client_certificate: Some(("chain".into(), "key".into())),
        keys: [("release".to_owned(), key)].into(),
    };
    (object, references)
}

const PULL_SECRET: &str = r#"{"auths":{"registry.acme.example:5000":{"username":"acme","password":"canary"}}}"#;

fn plan(object: &PolicyImage, references: &References) -> Result<Plan, ValidateError> {
    validate(object, references, OperatorOptions::default())
}

fn target(plan: &Plan) -> &ConfigMapDelivery {
    let [Delivery::ConfigMap(target)] = plan.deliveries.as_slice() else {
        unreachable!()
    };
    target
}

#[test]
fn every_field_finds_its_place_in_the_plan() {
    let pair = signer();
    let (mut object, mut references) = good();
    references.keys.insert("release".into(), pem(&pair));
    let image: ImageReference = "registry.acme.example:5000/policies/authz".parse().unwrap();
    let access = RegistryAccess {
        tenant: "acme".into(),
        keyring: Keyring::from_docker_config(PULL_SECRET.as_bytes()).unwrap(),
        transport: TransportSettings {
            authorities_pem: Some("ca".into()),
            client_certificate: Some(ClientCertificate {
                chain_pem: "chain".into(),
                key_pem: Secret::new("key"),
            }),
            insecure: false,
        },
    };
    let expected = Plan {
        source: Source::Image(ImageSource::new(&image, Some("1.x"), access).unwrap()),
        trust: TrustPolicy::signed_by(vec![authority("release", &[&pair])], 1).unwrap(),
        deliveries: vec![Delivery::ConfigMap(ConfigMapDelivery {
            owner: ObjectKey {
                object: NamespacedName::new("acme", "authz"),
                uid: "1".into(),
            },
            name: "policy".into(),
            key: "policy.tar.gz".into(),
            labels: [("team".into(), "acme".into())].into(),
            annotations: [("note".into(), "hello".into())].into(),
        })],
    };
    assert_eq!(plan(&object, &references), Ok(expected.clone()));
    object.spec.verify = None;
    assert_eq!(
        plan(&object, &references),
        Ok(Plan {
            trust: TrustPolicy::NotConfigured,
            ..expected
        })
    );
}

#[test]
fn the_entries_of_all_pull_secrets_count_and_only_those_for_the_image_are_kept() {
    let (object, mut references) = good();
    let entries = |count: usize| {
        let entry = |number| (format!("host-{number}.example"), json!({ "username": "acme" }));
        let auths: serde_json::Map<String, Value> = (0..count).map(entry).collect();
        json!({ "auths": auths }).to_string().into_bytes()
    };
    references.pull_secrets.push(("second".into(), entries(200)));
    let kept = plan(&object, &references).unwrap();
    let Source::Image(source) = &kept.source;
    assert_eq!(source.access().keyring.len(), 1);
    references.pull_secrets.push(("third".into(), entries(100)));
    let error = plan(&object, &references).unwrap_err();
    assert!(
        matches!(&error, ValidateError::ReadPullSecret { name, .. } if name == "third"),
        "{error}"
    );
}

#[test]
fn what_is_absent_has_defaults() {
    let object = object(&json!({ "image": "authz" }));
    let plan = plan(&object, &References::default()).unwrap();
    let target = target(&plan);
    assert_eq!(
        (target.name.as_str(), target.key.as_str()),
        ("authz-bundle", "bundle.tar.gz")
    );
    assert_eq!(
        (interval(&object.spec), timeout(&object.spec)),
        (Ok(DEFAULT_INTERVAL), Ok(DEFAULT_TIMEOUT))
    );
    let Source::Image(source) = &plan.source;
    let access = RegistryAccess {
        tenant: "acme".into(),
        ..RegistryAccess::default()
    };
    assert_eq!((source.access(), plan.trust), (&access, TrustPolicy::NotConfigured));
}

type Break = fn(&mut PolicyImage, &mut References);

const FAULTS: &[(Break, &str)] = &[
    (|object, _| object.metadata.name = None, "the object has no name"),
    (
        |object, _| object.metadata.namespace = None,
        "the object has no namespace",
    ),
    (|object, _| object.metadata.uid = None, "the object has no uid"),
    (
        |object, _| object.spec.image = "oci://a/b".into(),
        "spec.image: image 'oci://a/b' starts with a scheme",
    ),
    (
        |object, _| object.spec.semver = Some("newest".into()),
        "spec.semver: 'newest' is not a version range",
    ),
    (
        |object, _| object.spec.image = "a/b:1".into(),
        "spec.semver: a version range picks the tag, so image 'docker.io/a/b:1' can have neither a tag nor a digest",
    ),
    (
        |object, _| object.spec.interval = "1s".into(),
        "spec.interval '1s' is not a duration between 5s and 24h, such as '90s' or '1h30m'",
    ),
    (
        |object, _| object.spec.timeout = Some("11m".into()),
        "spec.timeout '11m' is not a duration between 1s and 10m, such as '90s' or '1h30m'",
    ),
    (
        |object, _| object.spec.interval = "89s".into(),
        "spec.timeout must not be longer than spec.interval",
    ),
    (
        |object, _| object.spec.insecure = true,
        "spec.insecure means plain HTTP, which uses no certificates; remove 'tls' or 'insecure'",
    ),
    (
        |object, _| object.spec.image_pull_secrets = vec![NameReference { name: "a".into() }; 17],
        "spec.imagePullSecrets has more than 16 entries",
    ),
    (
        |_, references| references.pull_secrets = vec![("pull".into(), b"canary".to_vec())],
        "key '.dockerconfigjson' of Secret 'pull': not a Docker configuration in JSON with an object 'auths' (line 1, column 1)",
    ),
    (
        |_, references| drop(references.keys.insert("release".into(), "canary".into())),
        "the key of authority 'release': line 1 is not PEM; expected only '-----BEGIN PUBLIC KEY-----' blocks",
    ),
    (
        |_, references| references.keys.clear(),
        "spec.verify.authorities.key must have exactly one of data, secretRef and configMapRef",
    ),
    (
        |_, references| drop(references.keys.insert("release".into(), String::new())),
        "the key of authority 'release': no PEM block; expected '-----BEGIN PUBLIC KEY-----', as in 'cosign.pub'",
    ),
    (
        |object, _| object.spec.verify.as_mut().unwrap().minimum_matches = 2,
        "spec.verify: 2 matches required of 1 authorities, not 1 to 1",
    ),
    (
        |object, _| object.spec.verify.as_mut().unwrap().minimum_matches = -1,
        "spec.verify: 0 matches required of 1 authorities, not 1 to 1",
    ),
    (
        |object, _| object.spec.verify.as_mut().unwrap().authorities.clear(),
        "spec.verify: 0 authorities, not 1 to 16",
    ),
    (
        |object, _| object.metadata.namespace = Some("kube-system".into()),
        "nothing is delivered to namespace 'kube-system', which belongs to Kubernetes; use a namespace of your own",
    ),
    (
        |object, _| config_map(object).name = Some("kube-root-ca.crt".into()),
        "ConfigMap 'kube-root-ca.crt' belongs to Kubernetes; choose another 'spec.delivery.configMap.name'",
    ),
    (
        |object, _| config_map(object).name = Some("../other".into()),
        "spec.delivery.configMap.name is not the name of a ConfigMap",
    ),
    (
        |object, _| config_map(object).key = "..".into(),
        "spec.delivery.configMap.key is not at most 253",
    ),
    (
        |object, _| drop(config_map(object).labels.insert("opcr.io/x".into(), String::new())),
        "spec.delivery.configMap.labels have a key of opcr.io or app.kubernetes.io/managed-by, which the operator sets; remove it",
    ),
];

#[test]
fn each_fault_has_its_words() {
    for (fault, expected) in FAULTS {
        let (mut object, mut references) = good();
        fault(&mut object, &mut references);
        let message = plan(&object, &references).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}\nis not\n{expected}");
        assert!(!message.contains("canary"), "{message}");
    }
}

fn config_map(object: &mut PolicyImage) -> &mut ConfigMapDeliverySpec {
    object.spec.delivery.as_mut().unwrap().config_map.as_mut().unwrap()
}

#[test]
fn an_administrator_can_require_verification() {
    let options = OperatorOptions {
        require_verification: true,
        ..OperatorOptions::default()
    };
    let (mut object, references) = good();
    assert!(validate(&object, &references, options).is_ok());
    object.spec.verify = None;
    let error = validate(&object, &references, options).unwrap_err();
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::VerificationRequired, Disposition::Stalled)
    );
}

#[rstest]
#[case::shorter_than_the_cap(Some("20s"), 20)]
#[case::longer_than_the_cap(Some("10m"), 30)]
#[case::the_default(None, 30)]
#[case::unreadable(Some("soon"), 30)]
fn an_administrator_can_cap_how_long_a_run_takes(#[case] timeout: Option<&str>, #[case] seconds: u64) {
    let (mut object, _) = good();
    object.spec.interval = "1h".into();
    object.spec.timeout = timeout.map(Into::into);
    let rules = OperatorOptions {
        max_timeout: Duration::from_secs(30),
        ..OperatorOptions::default()
    };
    assert_eq!(deadline(&object.spec, rules), Duration::from_secs(seconds));
}

#[rstest]
#[case("90s", Some(90))]
#[case("10m", Some(600))]
#[case("11m", None)]
#[case("0s", None)]
#[case("long", None)]
fn the_cap_is_bounded_as_the_timeout_is(#[case] text: &str, #[case] seconds: Option<u64>) {
    assert_eq!(parse_max_timeout(text).ok(), seconds.map(Duration::from_secs));
}

#[rstest]
#[case("5s", Some(5_000))]
#[case("24h", Some(86_400_000))]
#[case("1h30m15s500ms", Some(5_415_500))]
#[case("5m5m", Some(600_000))]
#[case("00090s", Some(90_000))]
#[case("86399s1000ms", Some(86_400_000))]
#[case("4999ms", None)]
#[case("24h1ms", None)]
#[case("", None)]
#[case("0s", None)]
#[case("-1s", None)]
#[case("+6s", None)]
#[case("1e9h", None)]
#[case("9999999h", None)]
#[case("18446744073709551616s", None)]
#[case("1.5h", None)]
#[case("10", None)]
#[case("s", None)]
#[case("10 s", None)]
#[case("10S", None)]
#[case("10us", None)]
#[case("1d", None)]
#[case("٥m", None)]
fn durations_are_plain_and_between_their_bounds(#[case] text: &str, #[case] milliseconds: Option<u64>) {
    let object = object(&json!({ "image": "authz", "interval": text }));
    assert_eq!(
        interval(&object.spec).ok(),
        milliseconds.map(Duration::from_millis),
        "{text:?}"
    );
}

#[test]
fn the_default_deadline_is_no_longer_than_the_interval() {
    let object = object(&json!({ "image": "authz", "interval": "10s" }));
    assert_eq!(timeout(&object.spec), Ok(Duration::from_secs(10)));
}

/// Anything that fits the types of the schema, mostly near what is right.
fn any_spec() -> impl Strategy<Value = Value> {
    let text = || {
        prop_oneof![
            "[a-z]{1,8}",
            "[ -~]{0,20}",
            "\\PC{0,12}",
            "(\\.\\./)?[a-z]{1,9}/?[.]?",
            Just("a".repeat(300))
        ]
    };
    let image = prop_oneof![
        "([a-z]{1,5}\\.example(:[0-9]{1,6})?/)?[a-z]{1,6}(:[a-z0-9.]{1,5})?",
        "[a-z0-9./:@_-]{0,60}",
        "[a-z]{1,5}@sha256:[0-9a-fA-F]{62,66}",
        text(),
    ];
    let duration = || {
        prop_oneof![
            "[0-9]{0,9}(ms|s|m|h|d)",
            "(-|\\+)?[0-9.]{1,4}(e9)?(s|h)([0-9]{1,3}m)?",
            text()
        ]
    };
    let reference = || (text(), text()).prop_map(|(name, key)| json!({ "name": name, "key": key }));
    let key = prop_oneof![
        text().prop_map(|data| json!({ "data": data })),
        (reference(), text()).prop_map(|(reference, data)| json!({ "secretRef": reference, "data": data })),
        reference().prop_map(|reference| json!({ "configMapRef": reference })),
        Just(json!({})),
    ];
    let authority = (text(), key).prop_map(|(name, key)| json!({ "name": name, "key": key }));
    let verify = (any::<i32>(), prop::collection::vec(authority, 0..20))
        .prop_map(|(matches, authorities)| json!({ "minimumMatches": matches, "authorities": authorities }));
    let map = || prop::collection::btree_map(text(), text(), 0..40);
    let delivery = (prop::option::of(text()), text(), map(), map()).prop_map(|(name, key, labels, annotations)| {
        json!({ "configMap": { "name": name, "key": key, "labels": labels, "annotations": annotations } })
    });
    let optional = (
        prop::option::weighted(0.2, text()),
        prop::option::weighted(0.2, duration()),
        prop::option::weighted(0.5, duration()),
        prop::option::weighted(0.3, verify),
        prop::option::weighted(0.4, delivery),
        any::<bool>(),
    );
    (image, optional).prop_map(|(image, (semver, timeout, interval, verify, delivery, insecure))| {
        json!({
            "image": image, "semver": semver, "timeout": timeout, "interval": interval.unwrap_or("5m".into()),
            "verify": verify, "delivery": delivery, "insecure": insecure,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_object_of_the_right_types_gives_a_plan_or_an_error(spec in any_spec(), name in "[a-z]{1,5}|a{253}") {
        let mut object = object(&spec);
        object.metadata.name = Some(name);
        let keys = object.spec.verify.iter().flat_map(|verify| &verify.authorities).map(|authority| {
            (authority.name.clone(), authority.key.data.clone().unwrap_or_default())
        });
        let references = References { keys: keys.collect(), ..References::default() };
        match plan(&object, &references) {
            Ok(plan) => {
                prop_assert!((Duration::from_secs(5)..=Duration::from_hours(24)).contains(&interval(&object.spec).unwrap()));
                let name = &target(&plan).name;
                prop_assert!(name.len() <= 253 && !name.contains('/'));
                prop_assert!(timeout(&object.spec).unwrap() <= interval(&object.spec).unwrap());
            }
            Err(error) => prop_assert!(error.to_string().chars().count() < 700, "{error}"),
        }
    }

    #[test]
    fn what_is_written_as_a_duration_is_read_as_one(hours in 0..23_u64, minutes in 0..600_u64, seconds in 5..99_999_u64) {
        let total = Duration::from_secs(hours * 3600 + minutes * 60 + seconds);
        let object = object(&json!({ "image": "authz", "interval": format!("{hours}h{minutes}m{seconds}s") }));
        prop_assert_eq!(interval(&object.spec).ok(), Some(total).filter(|total| *total <= Duration::from_hours(24)));
    }
}
