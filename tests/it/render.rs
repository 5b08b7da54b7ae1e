//! `policy-operator render` and the other commands that need no cluster, by the real binary.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::cosign::{Format, Keys, Kind, sign};
use policy_operator_harness::image::{Bundle, PolicyImage, Pushed};
use policy_operator_harness::operator::{Operator, OperatorOptions};
use policy_operator_harness::registry::{InProcess, InProcessOptions};
use policy_operator_harness::run_directory::RunDirectory;
use policy_operator_harness::tls::Authority;
use policy_operator_harness::tools::repository_root;
use policy_operator_harness::{object, opa, ports};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const LIMIT: Duration = Duration::from_mins(1);
const BINARY: &str = env!("CARGO_BIN_EXE_policy-operator");

/// How a run of the program ended.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    code: Option<i32>,
    output: String,
    problems: String,
}

async fn run(directory: &Path, arguments: &[&str], input: &str) -> Run {
    run_with(directory, arguments, input, &[]).await
}

async fn run_with(directory: &Path, arguments: &[&str], input: &str, environment: &[(&str, &Path)]) -> Run {
    let mut command = Command::new(BINARY);
    command.current_dir(directory).args(arguments).env_clear();
    command.envs(environment.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("input");
    // Whoever does not read its input closes it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .expect("in time")
        .expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Run {
        code: ended.status.code(),
        output: text(ended.stdout),
        problems: text(ended.stderr),
    }
}

/// A registry with a signed and an unsigned image, the key, and a directory for manifests.
struct Stage {
    registry: InProcess,
    keys: Keys,
    signed: Pushed,
    unsigned: Pushed,
    directory: RunDirectory,
}

impl Stage {
    async fn open() -> Self {
        let registry = InProcess::start(InProcessOptions::default()).await.expect("registry");
        let endpoint = registry.endpoint();
        let push = async |answer: &str, tag: &str| {
            let bundle = Bundle::answering(answer).expect("bundle");
            PolicyImage::new(bundle)
                .push(endpoint, "acme/authz", tag)
                .await
                .expect("pushed")
        };
        let (signed, unsigned) = (push("yes", "1.0.0").await, push("no", "2.0.0").await);
        let keys = Keys::generate(Kind::P256).await.expect("keys");
        sign(&keys, endpoint, &signed.pinned, Format::Bundle)
            .await
            .expect("signed");
        let directory = RunDirectory::new("render").expect("directory");
        Self {
            registry,
            keys,
            signed,
            unsigned,
            directory,
        }
    }

    /// A manifest of a PolicyImage that trusts `key`.
    fn manifest(&self, image: &str, key: Option<&Value>) -> Value {
        let image = image.replace("REGISTRY", self.registry.host());
        let mut spec = json!({ "image": image, "insecure": true, "timeout": "20s" });
        if let Some(key) = key {
            spec["verify"] = json!({ "authorities": [{ "name": "release", "key": key }] });
        }
        policy_image(&spec)
    }

    async fn render(&self, files: &[&str], more: &[&str], input: &str) -> Run {
        let cache = self.directory.file("cache");
        let cache = cache.to_str().expect("text");
        let arguments = [
            &[
                "render",
                "--log-level",
                "error",
                "--allow-loopback",
                "--cache-dir",
                cache,
            ],
            more,
            &["--file"],
            files,
        ]
        .concat();
        run(self.directory.path(), &arguments, input).await
    }

    /// Without what differs from run to run.
    fn redacted(&self, text: &str) -> String {
        let mut text = text.replace(self.registry.host(), "REGISTRY");
        for (pushed, name) in [(&self.signed, "SIGNED"), (&self.unsigned, "UNSIGNED")] {
            text = text
                .replace(&pushed.digest, name)
                .replace(&pushed.layer_digest, &format!("BUNDLE OF {name}"));
            text = text
                .replace(&pushed.digest[7..19], &format!("SHORT {name}"))
                .replace(&pushed.layer_digest[7..19], &format!("SHORT BUNDLE OF {name}"));
        }
        let line = |line: &str| match line.split_once(": ") {
            Some((key, _)) if key.ends_with("bundle.tar.gz") => format!("{key}: BYTES\n"),
            Some((key, _)) if key.ends_with("lastTransitionTime") => format!("{key}: TIME\n"),
            Some((key, _)) if key.ends_with("trustDigest") => format!("{key}: TRUST\n"),
            _ => format!("{line}\n"),
        };
        text.lines()
            .filter(|line| !line.trim().starts_with("H4sI"))
            .map(line)
            .collect()
    }
}

fn policy_image(spec: &Value) -> Value {
    json!({ "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage", "metadata": { "name": "authz" }, "spec": spec })
}

/// JSON is YAML, too.
fn yaml(documents: &[Value]) -> String {
    documents
        .iter()
        .flat_map(|document| ["---\n".to_owned(), document.to_string(), "\n".to_owned()])
        .collect()
}

fn config_map(rendered: &Run) -> Value {
    assert_eq!(
        (rendered.code, rendered.problems.as_str()),
        (Some(0), ""),
        "{rendered:?}"
    );
    let documents: Vec<Value> = serde_saphyr::from_multiple(&rendered.output).expect("YAML");
    documents
        .into_iter()
        .find(|document| document["kind"] == "ConfigMap")
        .expect("ConfigMap")
}

#[tokio::test]
async fn what_is_signed_is_rendered_the_same_each_time_and_opa_loads_it() {
    let stage = Stage::open().await;
    let key = json!({ "secretRef": { "name": "key", "key": "cosign.pub" } });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "key" },
        "stringData": { "cosign.pub": stage.keys.public_pem },
    });
    let other = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "other" }, "spec": {} });
    let manifest = stage.manifest("REGISTRY/acme/authz:1.0.0", Some(&key));
    stage
        .directory
        .write("all.yaml", yaml(&[other, secret, manifest]))
        .expect("written");
    let rendered = stage.render(&["all.yaml"], &[], "").await;
    assert_eq!(rendered, stage.render(&["all.yaml"], &[], "").await);
    insta::assert_snapshot!("config_map", stage.redacted(&rendered.output));
    let bytes = STANDARD.decode(
        config_map(&rendered)["binaryData"]["bundle.tar.gz"]
            .as_str()
            .expect("bytes"),
    );
    let bundle = stage
        .directory
        .write("bundle.tar.gz", bytes.expect("base64"))
        .expect("written");
    assert_eq!(opa::eval(&bundle, "data.app.answer").await.expect("loaded"), "yes");
}

#[tokio::test]
async fn manifests_come_from_several_files_and_from_standard_input() {
    let stage = Stage::open().await;
    let key = json!({ "configMapRef": { "name": "key", "key": "cosign.pub" } });
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "key", "namespace": "acme" },
        "data": { "cosign.pub": stage.keys.public_pem },
    });
    stage.directory.write("key.yaml", yaml(&[map])).expect("written");
    let manifest = yaml(&[stage.manifest("REGISTRY/acme/authz:1.0.0", Some(&key))]);
    let rendered = stage
        .render(&["key.yaml", "-"], &["--namespace", "acme"], &manifest)
        .await;
    assert_eq!(config_map(&rendered)["metadata"]["namespace"], "acme");
    let items = [stage.manifest("REGISTRY/acme/authz:1.0.0", Some(&key))];
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let listed = stage
        .render(&["key.yaml", "-"], &["--namespace", "acme"], &yaml(&[list]))
        .await;
    assert_eq!(listed.output, rendered.output);
    // The key is in another namespace.
    let rendered = stage.render(&["key.yaml", "-"], &[], &manifest).await;
    assert_eq!((rendered.code, rendered.output.as_str()), (Some(1), ""), "{rendered:?}");
}

#[tokio::test]
async fn the_status_says_what_the_cluster_would() {
    let stage = Stage::open().await;
    let key = json!({ "data": stage.keys.public_pem });
    let status = async |image: &str, key: Option<&Value>| {
        let rendered = stage
            .render(&["-"], &["--status"], &yaml(&[stage.manifest(image, key)]))
            .await;
        let lines = stage.redacted(&rendered.output);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&lines).expect("YAML");
        let shown = documents
            .into_iter()
            .find(|document| document["kind"] == "PolicyImage")
            .expect("PolicyImage");
        assert_eq!(
            shown.pointer("/spec/verify/authorities/0/key/data").is_some(),
            key.is_some()
        );
        shown["status"].clone()
    };
    insta::assert_yaml_snapshot!("status_verified", status("REGISTRY/acme/authz:1.0.0", Some(&key)).await);
    insta::assert_yaml_snapshot!("status_unsigned", status("REGISTRY/acme/authz:2.0.0", Some(&key)).await);
    insta::assert_yaml_snapshot!("status_unverified", status("REGISTRY/acme/authz:2.0.0", None).await);
}

/// 0 delivered, 1 refused, 2 wrong files or flags, 3 unknown; the worst of several counts, and refused is worst.
#[tokio::test]
async fn the_exit_status_and_the_message_tell_what_to_do() {
    let stage = Stage::open().await;
    let key = json!({ "data": stage.keys.public_pem });
    let good = stage.manifest("REGISTRY/acme/authz:1.0.0", Some(&key));
    let unsigned = stage.manifest("REGISTRY/acme/authz:2.0.0", Some(&key));
    let absent = stage.manifest("REGISTRY/acme/authz:3.0.0", None);
    let closed = stage.manifest(&format!("127.0.0.1:{}/acme/authz", ports::free().expect("port")), None);
    let no_key = stage.manifest(
        "REGISTRY/acme/authz:1.0.0",
        Some(&json!({ "secretRef": { "name": "a", "key": "b" } })),
    );
    let typo = policy_image(&json!({ "image": "authz", "verfiy": { "authorities": [] } }));
    let deep = policy_image(&json!({ "image": "authz", "delivery": { "configMap": { "labls": {} } } }));
    let wrong = policy_image(&json!({ "image": "authz", "interval": "1s" }));
    let nameless = json!({ "apiVersion": "opcr.io/v1alpha1", "kind": "PolicyImage", "spec": { "image": "authz" } });
    let newer = json!({ "apiVersion": "opcr.io/v2", "kind": "PolicyImage", "metadata": { "name": "a" }, "spec": {} });
    let unverified = stage.manifest("REGISTRY/acme/authz:1.0.0", None);
    let require: &[&str] = &["--require-verification"];
    let cases: [(&str, &[&str], String); 16] = [
        ("good", &[], yaml(std::slice::from_ref(&good))),
        (
            "good and verification required",
            require,
            yaml(std::slice::from_ref(&good)),
        ),
        ("unverified", &[], yaml(std::slice::from_ref(&unverified))),
        ("unverified and verification required", require, yaml(&[unverified])),
        ("unsigned", &[], yaml(std::slice::from_ref(&unsigned))),
        ("interval too short", &[], yaml(&[wrong])),
        ("no such tag", &[], yaml(std::slice::from_ref(&absent))),
        ("no such registry", &[], yaml(&[closed])),
        ("no such Secret", &[], yaml(&[no_key])),
        (
            "good, absent and unsigned",
            &[],
            yaml(&[good.clone(), absent, unsigned]),
        ),
        ("typing error", &[], yaml(&[good, typo])),
        ("typing error further down", &[], yaml(&[deep])),
        ("no name", &[], yaml(&[nameless])),
        ("another version", &[], yaml(&[newer])),
        ("no YAML", &[], "a: [".into()),
        ("nothing", &[], String::new()),
    ];
    let mut table = String::new();
    for (name, more, input) in cases {
        let rendered = stage.render(&["-"], more, &input).await;
        let problems = stage.redacted(&rendered.problems);
        write!(table, "{name}: {}\n{problems}", rendered.code.expect("code")).expect("written");
    }
    for file in ["absent.yaml", "."] {
        let rendered = stage.render(&[file], &[], "").await;
        write!(
            table,
            "file {file}: {}\n{}",
            rendered.code.expect("code"),
            rendered.problems
        )
        .expect("written");
    }
    insta::assert_snapshot!("exit_status", table.replace(&address_in(&table), "CLOSED"));
}

#[rstest]
#[case::number(json!({ "data": { "password": 978_312_645 } }))]
#[case::text(json!({ "data": "978312645" }))]
#[case::number_as_text(json!({ "stringData": { "password": 978_312_645 } }))]
#[case::no_base64(json!({ "data": { "password": "978312645!" } }))]
#[tokio::test]
async fn what_is_wrong_in_a_secret_is_not_repeated(#[case] content: Value) {
    let mut secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "pull" } });
    secret
        .as_object_mut()
        .expect("object")
        .extend(content.as_object().expect("object").clone());
    let directory = RunDirectory::new("render-secret").expect("directory");
    let refused = run(directory.path(), &["render", "--file", "-"], &yaml(&[secret])).await;
    assert_eq!((refused.code, refused.output.as_str()), (Some(2), ""));
    assert!(refused.problems.contains("not a valid Secret"), "{refused:?}");
    assert!(!refused.problems.contains("978312645"), "{refused:?}");
}

/// The only address on loopback that is left in `text`.
#[tokio::test]
async fn a_system_without_certificate_authorities_is_named_as_the_fault_and_not_the_object() {
    let stage = Stage::open().await;
    let path = |name: &str, text: String| stage.directory.write(name, text).expect("written");
    let empty = path("empty.pem", String::new());
    let over_tls = policy_image(&json!({ "image": "127.0.0.1:1/acme/authz:1.0.0" }));
    let plain = stage.manifest("REGISTRY/acme/authz:1.0.0", None);
    let authority = Authority::new().expect("authority").certificate();
    let own_authority = policy_image(&json!({
        "image": "127.0.0.1:1/acme/authz:1.0.0", "timeout": "20s",
        "tls": { "caRef": { "configMapRef": { "name": "ca", "key": "ca.crt" } } },
    }));
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "ca" }, "data": { "ca.crt": authority },
    });
    for (name, documents, code, expected) in [
        (
            "plain",
            vec![plain],
            0,
            "this system has no certificate authorities: only",
        ),
        (
            "tls",
            vec![over_tls],
            3,
            "SystemCertificatesMissing: this system has no certificate authorities",
        ),
        (
            "own",
            vec![own_authority, map],
            3,
            "RegistryUnavailable: registry '127.0.0.1:1' cannot be reached",
        ),
    ] {
        let manifest = path(&format!("{name}.yaml"), yaml(&documents));
        let manifest = manifest.to_str().expect("text");
        let arguments = ["render", "--log-level", "warn", "--allow-loopback", "--file", manifest];
        let environment = [("SSL_CERT_FILE", empty.as_path())];
        let rendered = run_with(stage.directory.path(), &arguments, "", &environment).await;
        assert_eq!(rendered.code, Some(code), "{name}: {rendered:?}");
        assert!(rendered.problems.contains(expected), "{name}: {}", rendered.problems);
        let warnings = rendered.problems.matches("only registries with an authority").count();
        assert_eq!(warnings, 1, "{name}: {}", rendered.problems);
    }
}

fn address_in(text: &str) -> String {
    let start = text.find("127.0.0.1:").expect("an address");
    text[start..]
        .chars()
        .take_while(|letter| letter.is_ascii_digit() || ".:".contains(*letter))
        .collect::<String>()
}

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let stage = Stage::open().await;
    let manifest = yaml(&[stage.manifest("REGISTRY/acme/authz:1.0.0", None)]);
    // What pushing and signing asked for.
    drop(stage.registry.take_counts());
    let rendered = run(
        stage.directory.path(),
        &["render", "--log-level", "error", "-f", "-"],
        &manifest,
    )
    .await;
    assert_eq!(rendered.code, Some(1), "{rendered:?}");
    assert!(rendered.problems.contains("AddressRefused"), "{rendered:?}");
    assert!(stage.registry.take_counts().is_empty(), "not one request");
}

#[tokio::test]
async fn the_operator_writes_what_is_rendered_and_whose_it_is() {
    let stage = Stage::open().await;
    let cluster = ControlPlane::shared().await.expect("control plane");
    let namespace = cluster.namespace("render").await.expect("namespace");
    let options = OperatorOptions {
        binary: BINARY.into(),
        kubeconfig: cluster.operator_kubeconfig().await.expect("kubeconfig"),
        namespaces: vec![namespace.clone()],
        arguments: Vec::new(),
        ..OperatorOptions::default()
    };
    let _operator = Operator::start(&options).expect("operator");
    let mut manifest = stage.manifest(
        "REGISTRY/acme/authz:1.0.0",
        Some(&json!({ "data": stage.keys.public_pem })),
    );
    manifest["spec"]["delivery"] =
        json!({ "configMap": { "labels": { "team": "acme" }, "annotations": { "a": "b" } } });
    let rendered = stage
        .render(&["-"], &["--namespace", &namespace], &yaml(&[manifest.clone()]))
        .await;
    let client = cluster.client().await.expect("client");
    let objects = object::api(client.clone(), &namespace);
    let made = serde_json::from_value(manifest).expect("object");
    objects.create(&PostParams::default(), &made).await.expect("created");
    object::until(&objects, "authz", "Ready", |ready| ready.status == "True", LIMIT)
        .await
        .expect("ready");
    let written: ConfigMap = Api::namespaced(client, &namespace)
        .get("authz-bundle")
        .await
        .expect("ConfigMap");
    let mut labels = written.metadata.labels.clone().expect("labels");
    assert_eq!(
        labels.remove("app.kubernetes.io/managed-by").as_deref(),
        Some("policy-operator")
    );
    let expected = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": written.metadata.name, "namespace": written.metadata.namespace,
            "labels": labels, "annotations": written.metadata.annotations,
        },
        "binaryData": written.binary_data,
    });
    assert_eq!(config_map(&rendered), expected);
}

#[tokio::test]
async fn help_explains_every_command() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_run", &["run", "--help"]),
        ("help_render", &["render", "--help"]),
    ] {
        let help = run(repository_root(), arguments, "").await;
        assert_eq!((help.code, help.problems.as_str()), (Some(0), ""));
        insta::assert_snapshot!(name, help.output);
    }
}

#[tokio::test]
async fn the_printed_definition_is_the_one_that_is_installed() {
    let printed = run(repository_root(), &["crd"], "").await;
    let installed = std::fs::read_to_string(repository_root().join("config/crd/opcr.io_policyimages.yaml"));
    assert!(printed.output == installed.expect("file"), "run 'make generate'");
}
