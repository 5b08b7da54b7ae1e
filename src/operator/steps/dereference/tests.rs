use std::sync::Mutex;

use rstest::rstest;
use serde_json::{Value, json};

use super::error::ABSENT_RETRY;
use super::*;
use crate::pipeline::reason::{Classify as _, Disposition, Reason};

/// The objects of two namespaces, and everything that was asked for.
#[derive(Default)]
struct Objects {
    secrets: BTreeMap<(&'static str, &'static str), Values>,
    config_maps: BTreeMap<(&'static str, &'static str), Values>,
    accounts: BTreeMap<(&'static str, &'static str), Vec<String>>,
    failure: Option<ReadError>,
    asked: Mutex<Vec<String>>,
}

impl Objects {
    fn note(&self, asked: String) {
        self.asked.lock().unwrap().push(asked);
    }

    fn find<K: Clone>(
        &self,
        objects: &BTreeMap<(&'static str, &'static str), K>,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>, ReadError> {
        self.note(format!("{namespace}/{name}"));
        let found = objects.iter().find(|(place, _)| **place == (namespace, name));
        self.failure
            .clone()
            .map_or(Ok(found.map(|(_, object)| object.clone())), Err)
    }
}

fn only(found: Option<Values>, keys: &[&str]) -> Option<Values> {
    found.map(|mut values| {
        values.retain(|key, _| keys.contains(&key.as_str()));
        values
    })
}

impl ObjectReader for Objects {
    async fn secret(&self, namespace: &str, name: &str, keys: &[&str]) -> Result<Option<Values>, ReadError> {
        let found = self.find(&self.secrets, namespace, name)?;
        Ok(only(found, keys))
    }

    async fn config_map(&self, namespace: &str, name: &str, keys: &[&str]) -> Result<Option<Values>, ReadError> {
        let found = self.find(&self.config_maps, namespace, name)?;
        Ok(only(found, keys))
    }

    async fn service_account(&self, namespace: &str, name: &str) -> Result<Option<Vec<String>>, ReadError> {
        self.find(&self.accounts, namespace, name)
    }
}

fn values(values: &[(&str, &[u8])]) -> Values {
    let owned = values.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec()));
    owned.collect()
}

fn account(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn objects() -> Objects {
    let mut objects = Objects::default();
    let large = vec![b'a'; MAX_VALUE_BYTES + 1];
    let secret: [(&str, &[u8]); 6] = [
        ("key", b"pem of the Secret"),
        ("binary", &[0xff, 0xfe]),
        ("large", &large),
        ("tls.crt", b"chain"),
        ("tls.key", b"private"),
        (".dockerconfigjson", b"{}"),
    ];
    objects.secrets.insert(("acme", "secret"), values(&secret));
    objects
        .secrets
        .insert(("acme", "pull"), values(&[(".dockerconfigjson", b"{\"auths\":{}}")]));
    objects.secrets.insert(("acme", "empty"), Values::new());
    objects.secrets.insert(("other", "foreign"), values(&secret));
    let map = values(&[("key", b"pem of the ConfigMap")]);
    objects.config_maps.insert(("acme", "map"), map.clone());
    objects.config_maps.insert(("other", "foreign"), map);
    objects.accounts.insert(("acme", "puller"), account(&["pull"]));
    objects
        .accounts
        .insert(("acme", "sneaky"), account(&["../../other/secrets/foreign"]));
    objects.accounts.insert(("acme", "nameless"), account(&[""]));
    objects
        .accounts
        .insert(("acme", "greedy"), account(&["pull"; MAX_PULL_SECRETS + 1]));
    objects.accounts.insert(("acme", "plain"), Vec::new());
    objects
}

async fn read(objects: &Objects, fields: Value) -> Result<References, DereferenceError> {
    let mut spec = json!({ "image": "authz" });
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    dereference(objects, "acme", &serde_json::from_value(spec).unwrap()).await
}

fn key(key: &Value) -> Value {
    json!({ "verify": { "authorities": [{ "name": "release", "key": key }] } })
}

#[tokio::test]
async fn everything_that_is_named_is_read_in_order() {
    let objects = objects();
    let fields = json!({
        "imagePullSecrets": [{ "name": "secret" }],
        "serviceAccountName": "puller",
        "tls": { "caRef": { "configMapRef": { "name": "map", "key": "key" } }, "certSecretRef": { "name": "secret" } },
        "verify": { "authorities": [
            { "name": "inline", "key": { "data": "pem" } },
            { "name": "secret", "key": { "secretRef": { "name": "secret", "key": "key" } } },
            { "name": "map", "key": { "configMapRef": { "name": "map", "key": "key" } } },
        ] },
    });
    let expected = References {
        pull_secrets: vec![
            ("secret".into(), b"{}".to_vec()),
            ("pull".into(), b"{\"auths\":{}}".to_vec()),
        ],
        authority_certificates: Some("pem of the ConfigMap".into()),
        client_certificate: Some(("chain".into(), "private".into())),
        keys: [
            ("inline", "pem"),
            ("secret", "pem of the Secret"),
            ("map", "pem of the ConfigMap"),
        ]
        .map(|(name, pem)| (name.to_owned(), pem.to_owned()))
        .into(),
    };
    assert_eq!(read(&objects, fields).await.unwrap(), expected);
}

#[tokio::test]
async fn who_names_nothing_reads_nothing() {
    let objects = objects();
    assert_eq!(read(&objects, json!({})).await.unwrap(), References::default());
    assert_eq!(*objects.asked.lock().unwrap(), Vec::<String>::new());
    assert_eq!(
        read(&objects, json!({ "serviceAccountName": "plain" })).await.unwrap(),
        References::default()
    );
}

#[rstest]
#[case::secret(json!({ "imagePullSecrets": [{ "name": "absent" }] }), Reason::ReferenceNotFound, "Secret 'absent' does not exist in this namespace; 'spec.imagePullSecrets' names it")]
#[case::foreign_secret(json!({ "imagePullSecrets": [{ "name": "foreign" }] }), Reason::ReferenceNotFound, "Secret 'foreign' does not exist in this namespace; 'spec.imagePullSecrets' names it")]
#[case::account(json!({ "serviceAccountName": "absent" }), Reason::ReferenceNotFound, "ServiceAccount 'absent' does not exist in this namespace; 'spec.serviceAccountName' names it")]
#[case::map(key(&json!({ "configMapRef": { "name": "absent", "key": "key" } })), Reason::ReferenceNotFound, "ConfigMap 'absent' does not exist in this namespace; 'spec.verify.authorities.key' names it")]
#[case::secret_key(key(&json!({ "secretRef": { "name": "secret", "key": "absent" } })), Reason::ReferenceNotFound, "Secret 'secret' has no key 'absent'; 'spec.verify.authorities.key' names it")]
#[case::map_key(key(&json!({ "configMapRef": { "name": "map", "key": "absent" } })), Reason::ReferenceNotFound, "ConfigMap 'map' has no key 'absent'; 'spec.verify.authorities.key' names it")]
#[case::wrong_type(json!({ "imagePullSecrets": [{ "name": "empty" }] }), Reason::ReferenceNotFound, "Secret 'empty' has no key '.dockerconfigjson'; 'spec.imagePullSecrets' names it")]
#[case::no_certificate(json!({ "tls": { "certSecretRef": { "name": "empty" } } }), Reason::ReferenceNotFound, "Secret 'empty' has no key 'tls.crt'; 'spec.tls.certSecretRef' names it")]
#[case::binary(key(&json!({ "secretRef": { "name": "secret", "key": "binary" } })), Reason::ReferenceInvalid, "key 'binary' of Secret 'secret' is not UTF-8 text of at most 1 MiB")]
#[case::large(key(&json!({ "secretRef": { "name": "secret", "key": "large" } })), Reason::ReferenceInvalid, "key 'large' of Secret 'secret' is not UTF-8 text of at most 1 MiB")]
#[case::many(json!({ "serviceAccountName": "greedy" }), Reason::ReferenceInvalid, "33 pull secrets, and at most 32 are tried; shorten 'spec.imagePullSecrets' or the imagePullSecrets of ServiceAccount 'spec.serviceAccountName'")]
#[tokio::test]
async fn what_cannot_be_used_is_named(#[case] fields: Value, #[case] reason: Reason, #[case] expected: &str) {
    let error = read(&objects(), fields).await.unwrap_err();
    assert_eq!((error.reason(), error.to_string().as_str()), (reason, expected));
    let waits = matches!(error.disposition(), Disposition::WaitFor(ABSENT_RETRY));
    assert_eq!(waits, reason == Reason::ReferenceNotFound);
}

/// D18. A name is a part of the path that the API server is asked for, so none that could change the path is asked for.
#[rstest]
#[case::pull_secret(|name: &str| json!({ "imagePullSecrets": [{ "name": name }] }))]
#[case::account(|name: &str| json!({ "serviceAccountName": name }))]
#[case::client_certificate(|name: &str| json!({ "tls": { "certSecretRef": { "name": name } } }))]
#[case::authority_secret(|name: &str| json!({ "tls": { "caRef": { "secretRef": { "name": name, "key": "key" } } } }))]
#[case::authority_map(|name: &str| json!({ "tls": { "caRef": { "configMapRef": { "name": name, "key": "key" } } } }))]
#[case::key_secret(|name: &str| key(&json!({ "secretRef": { "name": name, "key": "key" } })))]
#[case::key_map(|name: &str| key(&json!({ "configMapRef": { "name": name, "key": "key" } })))]
#[tokio::test]
async fn no_name_leads_out_of_the_namespace(#[case] fields: fn(&str) -> Value) {
    for name in [
        "other/foreign",
        "../../other/secrets/foreign",
        "..",
        "..%2fother",
        "foreign?watch=true",
        "foreign#",
        "",
    ] {
        let objects = objects();
        let error = read(&objects, fields(name)).await.unwrap_err();
        assert!(matches!(&error, DereferenceError::Name { .. }), "{name}: {error}");
        assert_eq!(error.disposition(), Disposition::Stalled);
        assert_eq!(*objects.asked.lock().unwrap(), Vec::<String>::new(), "{name}");
    }
    // Such a name is merely not there.
    let objects = objects();
    assert!(read(&objects, fields("foreign")).await.is_err());
    assert_eq!(*objects.asked.lock().unwrap(), ["acme/foreign"]);
}

/// The API server does not check the names in a ServiceAccount, which whoever may change it can choose.
#[rstest]
#[case("sneaky", "../../other/secrets/foreign")]
#[case("nameless", "")]
#[tokio::test]
async fn no_service_account_leads_out_of_the_namespace(#[case] account: &str, #[case] name: &str) {
    let objects = objects();
    let error = read(&objects, json!({ "serviceAccountName": account }))
        .await
        .unwrap_err();
    let expected =
        format!("Secret '{name}' is not the name of an object in this namespace; correct 'spec.serviceAccountName'");
    assert_eq!(error.to_string(), expected);
    assert_eq!(*objects.asked.lock().unwrap(), [format!("acme/{account}")]);
}

#[rstest]
#[case::forbidden(ReadError::Forbid("no".into()), Reason::KubernetesApiFailed, Disposition::Stalled)]
#[case::unavailable(ReadError::Temporary("no".into()), Reason::KubernetesApiFailed, Disposition::Retry)]
#[case::undecodable(ReadError::Decode("no".into()), Reason::ReferenceInvalid, Disposition::Stalled)]
#[tokio::test]
async fn an_api_server_that_refuses_is_not_asked_again_soon(
    #[case] failure: ReadError,
    #[case] reason: Reason,
    #[case] disposition: Disposition,
) {
    let objects = Objects {
        failure: Some(failure),
        ..objects()
    };
    let error = read(&objects, json!({ "imagePullSecrets": [{ "name": "secret" }] }))
        .await
        .unwrap_err();
    assert_eq!((error.reason(), error.disposition()), (reason, disposition));
    assert_eq!(error.to_string(), "Secret 'secret' cannot be read: no");
}

fn huge_key(name: &str) -> Value {
    json!({ "name": name, "key": { "secretRef": { "name": "huge", "key": ".dockerconfigjson" } } })
}

/// Thirty-two pull secrets of 1 MiB each were held by each run.
#[rstest]
#[case::pull_secrets(json!({ "imagePullSecrets": [{ "name": "huge" }, { "name": "huge" }, { "name": "huge" }] }))]
#[case::keys(json!({ "verify": { "authorities": [huge_key("a"), huge_key("b"), huge_key("c")] } }))]
#[case::all_together(json!({
    "imagePullSecrets": [{ "name": "huge" }, { "name": "huge" }],
    "tls": { "caRef": { "secretRef": { "name": "huge", "key": "tls.crt" } } },
}))]
#[tokio::test]
async fn the_values_of_one_object_are_bounded_together(#[case] fields: Value) {
    let mut objects = objects();
    let huge = vec![b'a'; MAX_REFERENCE_BYTES / 2];
    let content: [(&str, &[u8]); 2] = [(".dockerconfigjson", &huge), ("tls.crt", b"chain")];
    objects.secrets.insert(("acme", "huge"), values(&content));
    let error = read(&objects, fields).await.unwrap_err();
    assert!(matches!(error, DereferenceError::LimitBytes), "{error}");
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::ReferenceInvalid, Disposition::Stalled)
    );
    let two = json!({ "imagePullSecrets": [{ "name": "huge" }, { "name": "huge" }] });
    assert_eq!(read(&objects, two).await.unwrap().pull_secrets.len(), 2);
}
