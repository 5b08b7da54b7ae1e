//! Registries whose name, certificate or patience changes while objects follow them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::image::Bundle;
use policy_operator_harness::names::{Lookup, Names};
use policy_operator_harness::object;
use policy_operator_harness::operator::{Operator, OperatorOptions};
use policy_operator_harness::run_directory::RunDirectory;
use policy_operator_harness::scripted::{Answer, Asked, Scripted, Transport};
use policy_operator_harness::tls::Authority;
use policy_operator_harness::wait;
use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Arena, LIMIT, PAUSE, bytes, condition, manifest, operator_options, spec, status_of, with};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How long after a repair an object may take to be ready: nothing remembers a failure for longer.
const REPAIRED: Duration = Duration::from_secs(30);

/// A registry with one image, the policy that answers `one`. It closes every connection, so each request makes its own.
fn registry(asked: &Asked) -> Answer {
    let layer = Bundle::answering("one").expect("bundle");
    if asked.path.contains("/blobs/") {
        return Answer::ok(layer.0);
    }
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": layer.digest(),
        "size": layer.0.len(),
    });
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer] });
    Answer::ok(manifest.to_string()).header("Content-Type", MANIFEST)
}

/// The condition of `app` while runs fail: not ready for this reason, and what was delivered is still there.
async fn fails_and_keeps_its_bundle(arena: &Arena, reason: &str) {
    let object = arena.not_ready("app", reason).await;
    assert_eq!(condition(&object, "Delivered").status, "True");
    assert_eq!(arena.bundle("app").await, bytes("one"));
}

async fn ready_in_time(arena: &Arena) {
    let repaired = Instant::now();
    arena.ready("app").await;
    let took = repaired.elapsed();
    assert!(took < REPAIRED, "ready {took:?} after the repair");
}

/// F06: a name that is gone, that no server answers for, or slowly, and one that leads where nobody may go.
#[tokio::test]
async fn a_name_that_does_not_resolve_is_an_outage_and_one_that_leads_astray_is_refused() {
    const HOST: &str = "registry.acme.example.com";
    let mut arena = Arena::open("names").await;
    let server = Scripted::start(Transport::Plain, registry).await.expect("registry");
    let directory = RunDirectory::new("names").expect("directory");
    let here = Lookup::Address("127.0.0.1");
    let names = Names::new(&directory, HOST, here).await.expect("names");
    arena.operator = Operator::start(&OperatorOptions {
        environment: names.environment(),
        ..operator_options(arena.cluster, &arena.namespace).await
    })
    .expect("operator");
    arena.operator.ready().await.expect("ready");
    let image = format!("{HOST}:{}/acme/policy:stable", server.port());
    let often = json!({ "interval": "5s", "timeout": "4s" });
    arena.deliver("app", with(spec(&image), &often)).await;
    for lookup in [Lookup::NoSuchName, Lookup::TryAgain] {
        names.answer(lookup).expect("answer");
        fails_and_keeps_its_bundle(&arena, "RegistryUnavailable").await;
        names.answer(here).expect("answer");
        ready_in_time(&arena).await;
    }
    // Longer than a run may take.
    names.answer(Lookup::Slow("127.0.0.1")).expect("answer");
    fails_and_keeps_its_bundle(&arena, "DeadlineExceeded").await;
    names.answer(here).expect("answer");
    ready_in_time(&arena).await;

    names.answer(Lookup::Address("169.254.169.254")).expect("answer");
    fails_and_keeps_its_bundle(&arena, "AddressRefused").await;
    names.answer(here).expect("answer");
    ready_in_time(&arena).await;
}

/// F07: the registry gets a certificate of another authority. Runs fail closed, until the Secret that the spec names
/// holds that authority; the spec does not change.
#[tokio::test]
async fn an_authority_that_is_replaced_in_its_secret_is_trusted_at_the_next_run() {
    let arena = Arena::open("authority").await;
    let (old, new) = (
        Authority::new().expect("authority"),
        Authority::new().expect("authority"),
    );
    let certified = old.server().expect("certificate");
    let server = Scripted::start(Transport::Tls(&certified), registry)
        .await
        .expect("registry");
    arena.create_secret("ca", "ca.crt", &old.certificate()).await;
    let image = json!({
        "image": format!("{}/acme/policy:stable", server.host()),
        "interval": "5s",
        "tls": { "caRef": { "secretRef": { "name": "ca", "key": "ca.crt" } } },
    });
    let generation = arena.deliver("app", image).await.metadata.generation;

    let port = server.port();
    drop(server);
    let certified = new.server().expect("certificate");
    let start = || async {
        Ok(Scripted::start_at(port, Transport::Tls(&certified), registry)
            .await
            .ok())
    };
    let _server = wait::until("the port is free again", LIMIT, PAUSE, start)
        .await
        .expect("registry");
    fails_and_keeps_its_bundle(&arena, "TlsFailed").await;
    let rotated = Patch::Merge(json!({ "stringData": { "ca.crt": new.certificate() } }));
    arena
        .secrets()
        .patch("ca", &PatchParams::default(), &rotated)
        .await
        .expect("rotated");
    ready_in_time(&arena).await;
    assert_eq!(arena.get("app").await.metadata.generation, generation);
}

/// F01: a registry that asks for time gets it, and is asked again when it is over.
#[tokio::test]
async fn a_registry_that_asked_for_time_is_asked_again_after_it() {
    const WAIT: Duration = Duration::from_secs(5);
    let arena = Arena::open("limited").await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    let script = move |request: &Asked| {
        let mut times = times.lock().expect("no panic");
        times.push(Instant::now());
        if times.len() == 1 {
            return Answer::status(429).header("Retry-After", WAIT.as_secs().to_string());
        }
        registry(request)
    };
    let server = Scripted::start(Transport::Plain, script).await.expect("registry");
    let image = format!("{}/acme/policy:stable", server.host());
    arena.deliver("app", spec(&image)).await;
    let times = asked.lock().expect("no panic");
    let waited = times[1] - times[0];
    assert!(waited >= WAIT, "asked again after {waited:?}");
}

/// How a registry wastes time.
#[derive(Debug, Clone, Copy)]
enum Waste {
    /// It never goes on with the TLS handshake.
    Handshake,
    /// It sends its answer byte by byte, one in a second.
    Drip,
}

impl Waste {
    async fn serve(self, mut stream: TcpStream) {
        if matches!(self, Self::Drip) {
            let _size = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\nContent-Length: 1000\r\n\r\n");
            let mut written = stream.write_all(head.as_bytes()).await;
            while written.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                written = stream.write_all(b" ").await;
            }
        }
        tokio::time::sleep(LIMIT).await;
    }

    async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let host = listener.local_addr().expect("address").to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.serve(stream));
            }
        });
        host
    }
}

/// F05: fifty objects of one namespace on each kind of slow registry do not delay another namespace, and end themselves.
#[rstest]
#[case::handshake("slow-handshake", Waste::Handshake)]
#[case::drip("slow-drip", Waste::Drip)]
#[tokio::test]
async fn fifty_objects_on_a_slow_registry_delay_no_neighbour(#[case] name: &str, #[case] waste: Waste) {
    const CROWD: usize = 50;
    let cluster = ControlPlane::shared().await.expect("control plane");
    let crowd = cluster.namespace(&format!("{name}-crowd")).await.expect("namespace");
    let arena = Arena::with(name, &["--watch-namespaces", &crowd]).await;
    let images: Api<DynamicObject> = object::api(arena.client.clone(), &crowd);
    let host = waste.start().await;
    for number in 0..CROWD {
        let image = json!({
            "image": format!("{host}/slow/policy-{number}:1"),
            "insecure": matches!(waste, Waste::Drip),
            "timeout": "5s",
        });
        let object = manifest(&format!("slow-{number}"), image);
        images.create(&PostParams::default(), &object).await.expect("created");
    }
    arena.push("stable", "one").await;
    let started = Instant::now();
    arena.deliver("healthy", arena.spec("stable")).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    for number in 0..CROWD {
        let name = format!("slow-{number}");
        let ended = || async {
            let object = images.get(&name).await?;
            Ok((status_of(&object, "Ready") == Some("False")).then_some(object))
        };
        let object = wait::until("a slow object is told", LIMIT * 2, PAUSE, ended)
            .await
            .expect("told");
        let reason = condition(&object, "Ready").reason;
        assert!(
            ["DeadlineExceeded", "RegistryUnavailable"].contains(&reason.as_str()),
            "{reason}"
        );
    }
}
