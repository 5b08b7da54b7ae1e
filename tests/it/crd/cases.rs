//! Manifests at the bounds of the schema, and just over them.

use serde_json::{Map, Value, json};

/// A case: what it is about, and the whole object.
pub(crate) type Case = (String, Value);

const IMAGE: &str = "ghcr.io/acme/authz";
/// A public key.
pub(crate) const PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8nXRh950IZbRj8Ra/N9sbqOPZrfM
5/KAQN0/KjHcorm/J5yctVd7iEcnessRQjU917hmKO6JWVGHpDguIyakZA==
-----END PUBLIC KEY-----
";

/// The shortest object.
pub(crate) fn minimal() -> Value {
    object("authz", json!({ "image": "ghcr.io/acme/authz:1.0.0" }))
}

fn object(name: &str, spec: impl Into<Value>) -> Value {
    json!({
        "apiVersion": "opcr.io/v1alpha1",
        "kind": "PolicyImage",
        "metadata": { "namespace": "default", "name": name },
        "spec": spec.into(),
    })
}

/// The shortest object with more, or other, fields.
fn with(fields: impl Into<Value>) -> Value {
    let mut object = minimal();
    let (Some(spec), Value::Object(fields)) = (object["spec"].as_object_mut(), fields.into()) else {
        unreachable!()
    };
    spec.extend(fields);
    object
}

fn image(image: &str) -> Value {
    with(json!({ "image": image }))
}

fn interval(interval: &str) -> Value {
    with(json!({ "interval": interval }))
}

fn config_map(config_map: &Value) -> Value {
    with(json!({ "delivery": { "configMap": config_map } }))
}

fn verify(minimum: i64, authorities: &[(&str, Value)]) -> Value {
    let authorities: Vec<_> = authorities
        .iter()
        .map(|(name, key)| json!({ "name": name, "key": key }))
        .collect();
    with(json!({ "verify": { "minimumMatches": minimum, "authorities": authorities } }))
}

fn key(key: &Value) -> Value {
    verify(1, &[("release", key.clone())])
}

fn pull_secrets(count: usize, name: &str) -> Value {
    with(json!({ "imagePullSecrets": vec![json!({ "name": name }); count] }))
}

fn entries(count: usize) -> Map<String, Value> {
    (0..count)
        .map(|number| (format!("acme.example/{number}"), json!("value")))
        .collect()
}

fn reference(name: &str) -> Value {
    json!({ "name": name, "key": "ca.crt" })
}

fn long(length: usize) -> String {
    "a".repeat(length)
}

fn hex(digit: &str) -> String {
    digit.repeat(64)
}

fn named(cases: Vec<(&str, Value)>) -> Vec<Case> {
    cases
        .into_iter()
        .map(|(name, object)| (name.to_owned(), object))
        .collect()
}

/// What must be accepted, each next to something in [`refused`].
pub(crate) fn accepted() -> Vec<Case> {
    let mut cases = accepted_sources();
    cases.extend(accepted_delivery());
    cases.extend(accepted_references());
    cases
}

/// As many authorities, each with a key of its own: a shared one is refused for another reason.
fn authorities(count: usize) -> Vec<(String, Value)> {
    let key = |_| rcgen::KeyPair::generate().expect("key").public_key_pem();
    let named = |(number, pem)| (format!("authority-{number}"), json!({ "data": pem }));
    (0..count).map(key).enumerate().map(named).collect()
}

fn verify_all(minimum: i64, count: usize) -> Value {
    let authorities = authorities(count);
    let borrowed: Vec<_> = authorities
        .iter()
        .map(|(name, key)| (name.as_str(), key.clone()))
        .collect();
    verify(minimum, &borrowed)
}

fn accepted_references() -> Vec<Case> {
    let ca = |ca: Value| with(json!({ "tls": { "caRef": ca } }));
    named(vec![
        ("no pull secrets", with(json!({ "imagePullSecrets": [] }))),
        ("16 pull secrets", pull_secrets(16, "acme")),
        ("pull secret's name of 253", pull_secrets(1, &long(253))),
        (
            "ServiceAccount's name of 253",
            with(json!({ "serviceAccountName": long(253) })),
        ),
        (
            "client certificate alone",
            with(json!({ "tls": { "certSecretRef": { "name": "client.acme-1" } } })),
        ),
        ("authority in a Secret", ca(json!({ "secretRef": reference("ca") }))),
        (
            "authority in a ConfigMap",
            ca(json!({ "configMapRef": reference("ca") })),
        ),
        (
            "key of 253",
            ca(json!({ "secretRef": { "name": "a", "key": long(253) } })),
        ),
        ("one key", key(&json!({ "data": PEM }))),
        ("key in a Secret", key(&json!({ "secretRef": reference("key") }))),
        ("key in a ConfigMap", key(&json!({ "configMapRef": reference("key") }))),
        (
            "key of 16384",
            key(&json!({ "data": format!("{PEM}{}", "\n".repeat(16384 - PEM.len())) })),
        ),
        (
            "authority's name of 63",
            verify(1, &[(&long(63), json!({ "data": PEM }))]),
        ),
        ("16 of 16 authorities", verify_all(16, 16)),
    ])
}

fn accepted_sources() -> Vec<Case> {
    named(vec![
        ("minimal", minimal()),
        ("name of 246", object(&long(246), json!({ "image": IMAGE }))),
        (
            "name of 253 with a ConfigMap's name",
            object(
                &long(253),
                json!({ "image": IMAGE, "delivery": { "configMap": { "name": "authz" } } }),
            ),
        ),
        ("image without host", image("authz")),
        (
            "image with port and tag",
            image("registry.acme.example:5000/policies/authz:1.0.0"),
        ),
        (
            "image with tag and digest",
            image(&format!("{IMAGE}:1.0.0@sha256:{}", hex("a"))),
        ),
        ("image of a repository of 247", image(&format!("ghcr.io/{}", long(247)))),
        ("semver without tag", with(json!({ "image": IMAGE, "semver": "1.x" }))),
        (
            "semver with port",
            with(json!({ "image": "registry.acme.example:5000/authz", "semver": ">=1.2.0 <2.0.0" })),
        ),
        (
            "semver of 125",
            with(json!({ "image": IMAGE, "semver": format!("{}1.0.0", ">=1.0.0 ".repeat(15)) })),
        ),
        ("insecure", with(json!({ "insecure": true }))),
        ("interval 5s", interval("5s")),
        ("interval 24h", interval("24h")),
        ("interval in parts", interval("1h30m15s500ms")),
        ("interval of five digits", interval("00090s")),
        ("timeout 1s", with(json!({ "timeout": "1s" }))),
        ("timeout 10m", with(json!({ "timeout": "10m", "interval": "10m" }))),
        (
            "timeout as long as interval",
            with(json!({ "timeout": "30s", "interval": "30s" })),
        ),
        ("suspended", with(json!({ "suspend": true }))),
        (
            "null fields",
            with(json!({ "semver": null, "tls": null, "verify": null, "delivery": null, "timeout": null })),
        ),
    ])
}

fn accepted_delivery() -> Vec<Case> {
    named(vec![
        ("empty delivery", with(json!({ "delivery": {} }))),
        ("ConfigMap's name of 253", config_map(&json!({ "name": long(253) }))),
        ("ConfigMap's key of 253", config_map(&json!({ "key": long(253) }))),
        ("ConfigMap's key with a dot", config_map(&json!({ "key": ".bundle" }))),
        (
            "32 labels and annotations",
            config_map(&json!({ "labels": entries(32), "annotations": entries(32) })),
        ),
        (
            "labels at their bounds",
            config_map(
                &json!({ "labels": { "team": long(63), "empty": "", format!("acme.example/{}", long(63)): "A_b.c-d" } }),
            ),
        ),
        (
            "labels beside ours",
            config_map(&json!({ "labels": { "app.kubernetes.io/name": "x", "notopcr.io/a": "b" } })),
        ),
        (
            "annotation of 4096",
            config_map(&json!({ "annotations": { "note": "ä".repeat(4096) } })),
        ),
    ])
}

/// What must be refused.
pub(crate) fn refused() -> Vec<Case> {
    let mut cases = refused_sources();
    cases.extend(refused_access());
    cases.extend(refused_times());
    cases.extend(refused_verification());
    cases.extend(refused_delivery());
    cases
}

fn refused_sources() -> Vec<Case> {
    named(vec![
        ("no image", object("authz", json!({}))),
        ("image: empty", image("")),
        ("image: 600 characters", image(&format!("ghcr.io/{}", long(592)))),
        ("image: scheme", image("oci://ghcr.io/acme/authz:1.0.0")),
        ("image: user", image("user:secret@ghcr.io/acme/authz")),
        ("image: space", image("ghcr.io/acme/au thz")),
        ("image: newline", image("ghcr.io/acme/authz:1.0.0\n")),
        ("image: unicode", image("ghcr.io/acme/аuthz:1.0.0")),
        (
            "image: upper-case digest",
            image(&format!("{IMAGE}@sha256:{}", hex("A"))),
        ),
        (
            "image: short digest",
            image(&format!("{IMAGE}@sha256:{}", &hex("a")[1..])),
        ),
        (
            "image: another algorithm",
            image(&format!("{IMAGE}@sha512:{}", hex("ab"))),
        ),
        ("image: a number", with(json!({ "image": 5 }))),
        (
            "semver: with tag",
            with(json!({ "image": "ghcr.io/acme/authz:1.0.0", "semver": "1.x" })),
        ),
        (
            "semver: with digest",
            with(json!({ "image": format!("{IMAGE}@sha256:{}", hex("a")), "semver": "1.x" })),
        ),
        ("semver: empty", with(json!({ "image": IMAGE, "semver": "" }))),
        (
            "semver: 129 characters",
            with(json!({ "image": IMAGE, "semver": format!("1.x{}", " ".repeat(126)) })),
        ),
        ("name: 247 characters", object(&long(247), json!({ "image": IMAGE }))),
        (
            "name: 253 characters",
            object(&long(253), json!({ "image": IMAGE, "delivery": { "configMap": {} } })),
        ),
    ])
}

fn refused_access() -> Vec<Case> {
    let ca = |ca: Value| with(json!({ "tls": { "caRef": ca } }));
    named(vec![
        ("imagePullSecrets: 17", pull_secrets(17, "acme")),
        ("imagePullSecrets: no name", with(json!({ "imagePullSecrets": [{}] }))),
        ("imagePullSecrets: empty name", pull_secrets(1, "")),
        ("imagePullSecrets: 254 characters", pull_secrets(1, &long(254))),
        ("imagePullSecrets: another namespace", pull_secrets(1, "other/acme")),
        ("imagePullSecrets: path", pull_secrets(1, "../other/secrets/acme")),
        ("serviceAccountName: empty", with(json!({ "serviceAccountName": "" }))),
        (
            "serviceAccountName: path",
            with(json!({ "serviceAccountName": "../other" })),
        ),
        (
            "serviceAccountName: 254 characters",
            with(json!({ "serviceAccountName": long(254) })),
        ),
        ("tls: empty", with(json!({ "tls": {} }))),
        (
            "tls: with insecure",
            with(json!({ "insecure": true, "tls": { "certSecretRef": { "name": "client" } } })),
        ),
        (
            "tls.certSecretRef: another namespace",
            with(json!({ "tls": { "certSecretRef": { "name": "other/client" } } })),
        ),
        ("tls.caRef: empty", ca(json!({}))),
        (
            "tls.caRef: both",
            ca(json!({ "secretRef": reference("a"), "configMapRef": reference("a") })),
        ),
        (
            "tls.caRef: another namespace",
            ca(json!({ "configMapRef": reference("other/ca") })),
        ),
        ("tls.caRef: upper case", ca(json!({ "secretRef": reference("CA") }))),
        ("tls.caRef: no key", ca(json!({ "secretRef": { "name": "a" } }))),
        (
            "tls.caRef: empty key",
            ca(json!({ "secretRef": { "name": "a", "key": "" } })),
        ),
        (
            "tls.caRef: key with a slash",
            ca(json!({ "secretRef": { "name": "a", "key": "a/b" } })),
        ),
        (
            "tls.caRef: key of 254",
            ca(json!({ "secretRef": { "name": "a", "key": long(254) } })),
        ),
        ("insecure: a word", with(json!({ "insecure": "yes" }))),
        ("suspend: a word", with(json!({ "suspend": "yes" }))),
    ])
}

fn refused_times() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "",
        "0s",
        "-1s",
        "1e9h",
        "9999999h",
        "99999h99999h",
        "000005s",
        "1.5h",
        "5",
        "5 m",
        "4s",
        "4999ms",
        "24h1s",
        "1d",
        "٥m",
    ]
    .into_iter()
    .map(|text| (format!("interval: '{text}'"), interval(text)))
    .collect();
    cases.push(("interval: 33 characters".into(), interval(&"01s".repeat(11))));
    cases.push(("interval: a number".into(), with(json!({ "interval": 300 }))));
    for text in ["", "0s", "999ms", "10m1s", "-1s", "9999999h", "1e9h", "forever"] {
        cases.push((
            format!("timeout: '{text}'"),
            with(json!({ "timeout": text, "interval": "24h" })),
        ));
    }
    cases.push((
        "timeout: 33 characters".into(),
        with(json!({ "timeout": "01s".repeat(11) })),
    ));
    cases.push((
        "timeout: longer than interval".into(),
        with(json!({ "timeout": "31s", "interval": "30s" })),
    ));
    cases.push((
        "timeout: longer than the default interval".into(),
        with(json!({ "timeout": "6m" })),
    ));
    cases
}

fn refused_verification() -> Vec<Case> {
    let data = || json!({ "data": PEM });
    let private =
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ncanary\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
    named(vec![
        ("verify: empty", with(json!({ "verify": {} }))),
        ("authorities: none", verify(1, &[])),
        ("authorities: 17", verify_all(1, 17)),
        (
            "authorities: same name",
            verify(1, &[("release", data()), ("release", data())]),
        ),
        (
            "authorities: no key",
            with(json!({ "verify": { "authorities": [{ "name": "release" }] } })),
        ),
        ("authorities: empty name", verify(1, &[("", data())])),
        ("authorities: name of 64", verify(1, &[(&long(64), data())])),
        ("authorities: name with a dot", verify(1, &[("acme.example", data())])),
        ("minimumMatches: 0", verify(0, &[("release", data())])),
        ("minimumMatches: -1", verify(-1, &[("release", data())])),
        ("minimumMatches: 17", verify_all(17, 16)),
        (
            "minimumMatches: more than authorities",
            verify(2, &[("release", data())]),
        ),
        ("key: empty", key(&json!({}))),
        (
            "key: two sources",
            key(&json!({ "data": PEM, "secretRef": reference("a") })),
        ),
        (
            "key: three sources",
            key(&json!({ "data": PEM, "secretRef": reference("a"), "configMapRef": reference("a") })),
        ),
        ("key.data: empty", key(&json!({ "data": "" }))),
        ("key.data: no PEM", key(&json!({ "data": "ssh-ed25519 AAAA" }))),
        ("key.data: private key", key(&json!({ "data": private }))),
        (
            "key.data: private key beside the public one",
            key(&json!({ "data": format!("{PEM}{private}") })),
        ),
        (
            "key.data: 16385 characters",
            key(&json!({ "data": format!("{PEM}{}", "\n".repeat(16385 - PEM.len())) })),
        ),
        (
            "key.secretRef: another namespace",
            key(&json!({ "secretRef": reference("other/key") })),
        ),
        (
            "key.configMapRef: path",
            key(&json!({ "configMapRef": reference("../../kube-system/configmaps/key") })),
        ),
    ])
}

fn refused_delivery() -> Vec<Case> {
    let labels = |key: &str, value: &str| config_map(&json!({ "labels": { key: value } }));
    let annotations = |key: &str, value: &str| config_map(&json!({ "annotations": { key: value } }));
    let name = |name: &str| config_map(&json!({ "name": name }));
    let key = |key: &str| config_map(&json!({ "key": key }));
    named(vec![
        ("configMap.name: empty", name("")),
        ("configMap.name: 254 characters", name(&long(254))),
        ("configMap.name: another namespace", name("other/bundle")),
        ("configMap.name: upper case", name("Bundle")),
        ("configMap.name: Kubernetes' own", name("kube-root-ca.crt")),
        ("configMap.key: empty", key("")),
        ("configMap.key: '.'", key(".")),
        ("configMap.key: '..'", key("..")),
        ("configMap.key: '..data'", key("..data")),
        ("configMap.key: slash", key("a/b")),
        ("configMap.key: 254 characters", key(&long(254))),
        ("labels: 33", config_map(&json!({ "labels": entries(33) }))),
        ("labels: bad key", labels("a b", "c")),
        ("labels: empty key", labels("", "c")),
        ("labels: prefix alone", labels("acme.example/", "c")),
        ("labels: two slashes", labels("a/b/c", "d")),
        ("labels: broken prefix", labels("acme..example/a", "d")),
        ("labels: key of 64", labels(&long(64), "c")),
        ("labels: bad value", labels("a", "b c")),
        ("labels: value of 64", labels("a", &long(64))),
        ("labels: ours", labels("app.kubernetes.io/managed-by", "me")),
        ("annotations: 33", config_map(&json!({ "annotations": entries(33) }))),
        ("annotations: bad key", annotations("-a", "b")),
        ("annotations: ours", annotations("opcr.io/bundle-digest", "sha256:0")),
        ("annotations: value of 4097", annotations("a", &long(4097))),
    ])
}
