//! Bytes that could kill the process, sent to it while it has the memory of the Deployment and no more.

use policy_operator_harness::image::{Bundle, PolicyImage};
use policy_operator_harness::operator::{Operator, OperatorOptions};
use policy_operator_harness::scripted::{Answer, Asked, Scripted, Transport};
use policy_operator_harness::tls::Authority;
use policy_operator_harness::wait;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Arena, LIMIT, PAUSE, bytes, operator_options, spec, with};

/// What `config/deployment.yaml` gives the container.
const MEMORY_KIB: u32 = 256 << 10;
/// The largest manifest that is read, nearly.
const LARGE: usize = (4 << 20) - 4096;
/// Objects with large annotations: together four times the memory.
const ANNOTATED: usize = 64;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Made for this test; the private half was thrown away.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEVObbrOYJ0aTgj+GOcsQmSTb5BuYN\nLBhhqp3Xg255Bv7MO2TCstrcFAPYMRQ7gcOi6VRMFlu7Wt5vCFzA4W+cDQ==\n-----END PUBLIC KEY-----";

/// A manifest whose layer is said to have `size` bytes.
fn manifest(size: u64, annotations: &Value) -> String {
    let digest = Bundle::answering("one").expect("bundle").digest();
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size });
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer], "annotations": annotations }).to_string()
}

/// `part` as often as a large answer holds it, between `start` and `end`.
fn filled(start: &str, part: &str, end: &str, length: usize) -> String {
    format!("{start}{}{end}", part.repeat(length / part.len()))
}

/// A registry where the repository's name says how an answer is to hurt.
async fn hostile() -> Scripted {
    let layer = bytes("one");
    let size = layer.len() as u64;
    let nodes = filled(r#"{"schemaVersion":2,"layers":[],"x":[[0]"#, ",[0]", "]}", LARGE);
    let objects = filled(
        r#"{"schemaVersion":2,"layers":[],"x":[{"":0}"#,
        r#",{"":0}"#,
        "]}",
        LARGE,
    );
    let tags = filled(r#"{"tags":["1.0.0""#, r#","""#, "]}", (1 << 20) - 64);
    let script = move |asked: &Asked| {
        let parts: Vec<&str> = asked.path.split('/').collect();
        let [_, _, kind, _, list, ..] = parts.as_slice() else {
            return Answer::status(404);
        };
        let answer = match (*list, *kind) {
            ("blobs", "endless") => panic!("asked for 2^40 bytes"),
            ("blobs", _) => return Answer::ok(layer.clone()),
            ("tags", _) => return Answer::ok(tags.clone()),
            ("referrers", _) => return Answer::ok(referrers()).header("Content-Type", INDEX),
            ("manifests", "nodes") => nodes.clone(),
            ("manifests", "objects") => objects.clone(),
            ("manifests", "endless") => manifest(1 << 40, &json!({})),
            ("manifests", "plain") => manifest(size, &json!({})),
            ("manifests", number) => manifest(size, &json!({ "number": number, "text": "a".repeat(LARGE) })),
            _ => return Answer::status(404),
        };
        Answer::ok(answer).header("Content-Type", MANIFEST)
    };
    Scripted::start(Transport::Plain, script).await.expect("registry")
}

/// As many referrers as 4 MiB hold.
fn referrers() -> String {
    let digest = format!("sha256:{}", "a".repeat(64));
    let entry = format!(r#",{{"mediaType":"a","digest":"{digest}","size":1,"annotations":{{"a":"b","c":"d"}}}}"#);
    let first = entry.trim_start_matches(',');
    let start = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{first}"#);
    filled(&start, &entry, "]}", LARGE)
}

/// The most memory that the process has had, in KiB, as the kernel counts it.
fn peak(operator: &mut Operator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.process().id())).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("number")
}

/// Replaces the operator by one that has as much memory as the Deployment gives, and no more.
async fn limit_memory(arena: &mut Arena) {
    arena.operator = Operator::start(&OperatorOptions {
        memory_kib: Some(MEMORY_KIB),
        ..operator_options(arena.cluster, &arena.namespace).await
    })
    .expect("operator");
    arena.operator.ready().await.expect("ready");
}

#[tokio::test]
async fn bytes_that_could_kill_the_process_fail_their_object_and_others_are_served() {
    let mut arena = Arena::open("memory").await;
    limit_memory(&mut arena).await;
    arena.push("1.0.0", "one").await;
    let registry = hostile().await;
    let image = |kind: &str| spec(&format!("{}/{kind}/policy:1.0.0", registry.host()));
    let key = format!(r#"{{"auths":{{"{}":{{"username":"a"}}}}}}"#, "{*a,b}?".repeat(140_000));
    arena.create_secret("pull", ".dockerconfigjson", &key).await;
    let signed = json!({ "verify": { "authorities": [{ "name": "release", "key": { "data": PUBLIC_KEY } }] } });
    let failing = [
        ("nodes", image("nodes"), "NotAPolicyImage"),
        ("objects", image("objects"), "NotAPolicyImage"),
        ("endless", image("endless"), "TooLarge"),
        (
            "secret",
            with(image("plain"), &json!({ "imagePullSecrets": [{ "name": "pull" }] })),
            "ReferenceInvalid",
        ),
        ("referrers", with(image("plain"), &signed), "VerificationUnavailable"),
        (
            "tags",
            json!({ "image": format!("{}/plain/policy", registry.host()), "semver": "*", "insecure": true }),
            "RegistryProtocolError",
        ),
    ];
    for (name, spec, _) in &failing {
        arena.create(name, spec.clone()).await;
    }
    for number in 0..ANNOTATED {
        arena
            .create(&format!("annotated-{number}"), image(&number.to_string()))
            .await;
    }
    arena.deliver("healthy", arena.spec("1.0.0")).await;
    for (name, _, reason) in failing {
        arena.not_ready(name, reason).await;
    }
    for number in 0..ANNOTATED {
        arena.ready(&format!("annotated-{number}")).await;
    }
    arena.run_again("healthy").await;
    assert_eq!(arena.bundle("healthy").await, bytes("one"));
    let peak = peak(&mut arena.operator);
    assert!(peak < u64::from(MEMORY_KIB), "{peak} KiB");
    assert!(arena.operator.process().ended().expect("known").is_none());
}

/// Objects of each kind that hold as much as they may while a registry does not answer.
const HELD: usize = 40;
/// How long they hold it. They hold it again after a while, and until then others of their namespace have their turn.
const HELD_FOR: &str = "10s";
/// Nearly what a ConfigMap holds.
const NEARLY_MEBIBYTE: usize = 1_000_000;
/// The largest annotations that a spec may have.
const ANNOTATIONS: usize = 32;
/// Files of one bundle.
const FILES: usize = 9_990;

/// A registry that begins every answer and never ends it; a list of tags it begins with nearly all that is read.
async fn never_ending() -> Scripted {
    let tags = filled(
        r#"{"tags":["1.0.0""#,
        &format!(r#","{}""#, "v".repeat(120)),
        "]}",
        (1 << 20) - 512,
    );
    let script = move |asked: &Asked| {
        if asked.path.ends_with("/tags/list") {
            Answer::ok(tags.clone()).stalling_after(tags.len() - 2)
        } else {
            Answer::ok(vec![b' '; 1000])
                .header("Content-Type", MANIFEST)
                .stalling_after(10)
        }
    };
    Scripted::start(Transport::Plain, script).await.expect("registry")
}

/// A peer that accepts connections and is silent from then on.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let host = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    host
}

/// A bundle of so many files that their names are most of it.
fn many_files(files: usize) -> Bundle {
    let names: Vec<String> = (0..files)
        .map(|number| format!("/app/{}{number}.rego", "n".repeat(60)))
        .collect();
    let rego = b"package app\n".as_slice();
    let mut all: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), rego)).collect();
    let manifest = br#"{"revision":"","roots":["app"],"rego_version":1}"#.as_slice();
    all.push(("/.manifest", manifest));
    Bundle::tar(&all).expect("bundle")
}

/// Creates what waits for `host` in the memory of the operator: authorities, lists of tags, annotations.
async fn create_held(arena: &Arena, host: &str) {
    let authority = Authority::new().expect("authority").certificate();
    let authorities = authority.repeat(NEARLY_MEBIBYTE / authority.len());
    let annotation = |number: usize| (format!("acme.example.com/a-{number}"), json!("x".repeat(4096)));
    let annotations: Value = (0..ANNOTATIONS).map(annotation).collect();
    let silent = silent().await;
    for number in 0..HELD {
        let (name, image) = (format!("ca-{number}"), format!("{host}/held/policy-{number}"));
        let text = format!("{authorities}# {number}\n");
        let config_map = json!({ "metadata": { "name": &name }, "data": { "ca.crt": text } });
        arena.create_config_map(config_map).await;
        let tls = json!({ "caRef": { "configMapRef": { "name": &name, "key": "ca.crt" } } });
        let image_there = format!("{silent}/held/policy-{number}:1");
        arena
            .create(&name, json!({ "image": image_there, "tls": tls, "timeout": HELD_FOR }))
            .await;
        let range = with(spec(&image), &json!({ "semver": "*", "timeout": HELD_FOR }));
        arena.create(&format!("tags-{number}"), range).await;
        let delivery = json!({ "configMap": { "annotations": &annotations } });
        let annotated = with(
            spec(&format!("{image}:1")),
            &json!({ "delivery": delivery, "timeout": HELD_FOR }),
        );
        arena.create(&format!("large-{number}"), annotated).await;
    }
}

/// Each of these is within its limit. Together, and at one time, they are many times the memory.
#[tokio::test]
async fn what_many_runs_hold_at_one_time_fits_into_memory() {
    let mut arena = Arena::open("memory-held").await;
    limit_memory(&mut arena).await;
    arena.push("1.0.0", "one").await;
    let files = PolicyImage::new(many_files(FILES));
    files
        .push(arena.registry(), "acme/files", "stable")
        .await
        .expect("pushed");
    let registry = never_ending().await;
    create_held(&arena, &registry.host()).await;
    for number in 0..HELD {
        let image = format!("{}/acme/files:stable", arena.registry.host());
        arena.create(&format!("files-{number}"), spec(&image)).await;
    }
    let held = || async { Ok((registry.asked().len() > HELD).then_some(())) };
    wait::until("runs are held", LIMIT, PAUSE, held).await.expect("held");
    arena.deliver("healthy", arena.spec("1.0.0")).await;
    for number in 0..HELD {
        arena.ready(&format!("files-{number}")).await;
    }
    arena.run_again("healthy").await;
    let peak = peak(&mut arena.operator);
    assert!(arena.operator.process().ended().expect("known").is_none());
    assert!(peak < u64::from(MEMORY_KIB), "{peak} KiB");
}
