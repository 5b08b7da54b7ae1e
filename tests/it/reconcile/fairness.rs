//! One namespace cannot take runs, time or freshness from another, or from itself if a ConfigMap has to be restored.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::object;
use policy_operator_harness::scripted::{Answer, Scripted, Transport};
use policy_operator_harness::wait;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::responder::Responder;
use super::{Arena, LIMIT, PAUSE, bytes, condition, manifest, spec, with};

/// Objects of the crowd.
const CROWD: usize = 300;
/// "Within seconds", on a machine that does other things, too.
const SECONDS: Duration = Duration::from_secs(15);

/// A namespace full of objects, and another one, which the [`Arena`] is about. One operator watches both.
struct Neighbours {
    arena: Arena,
    crowd: String,
}

impl Neighbours {
    async fn open(name: &str) -> Self {
        let cluster = ControlPlane::shared().await.expect("control plane");
        let crowd = cluster.namespace(&format!("{name}-crowd")).await.expect("namespace");
        let arena = Arena::with(name, &["--watch-namespaces", &crowd]).await;
        Self { arena, crowd }
    }

    fn crowd(&self) -> Api<DynamicObject> {
        object::api(self.arena.client.clone(), &self.crowd)
    }

    async fn create_in_crowd(&self, name: &str, spec: Value) {
        let object = manifest(name, spec);
        self.crowd()
            .create(&PostParams::default(), &object)
            .await
            .expect("created");
    }

    /// The crowd, each with a repository of its own, so that no question is shared.
    async fn create_crowd(&self, host: &str) {
        for number in 0..CROWD {
            let spec = spec(&format!("{host}/silent/policy-{number}:1"));
            self.create_in_crowd(&format!("crowd-{number}"), spec).await;
        }
    }
}

/// A registry whose answers stop in the middle. Unlike one that says nothing, nobody can know it for dead.
async fn stalling() -> Scripted {
    let script = |asked: &_| match asked {
        policy_operator_harness::scripted::Asked { method, .. } if method == "HEAD" => Answer::status(200),
        _ => Answer::ok(vec![b' '; 100]).stalling_after(10),
    };
    Scripted::start(Transport::Plain, script).await.expect("registry")
}

async fn in_time<T>(what: &str, action: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = action.await;
    let took = started.elapsed();
    assert!(took < SECONDS, "{what} took {took:?}");
    done
}

async fn edit(config_maps: &Api<ConfigMap>, name: &str) {
    let edited = json!({ "binaryData": { "bundle.tar.gz": "AAAA" } });
    config_maps
        .patch(name, &PatchParams::default(), &Patch::Merge(edited))
        .await
        .expect("edited");
}

async fn until_restored(config_maps: &Api<ConfigMap>, name: &str, answer: &str) {
    let expected = bytes(answer);
    let attempt = || async {
        let config_map = config_maps.get(name).await?;
        let data = config_map.binary_data.unwrap_or_default();
        Ok((data.get("bundle.tar.gz").map(|bytes| &bytes.0) == Some(&expected)).then_some(()))
    };
    wait::until("the ConfigMap is restored", LIMIT, PAUSE, attempt)
        .await
        .expect("restored");
}

#[tokio::test]
async fn a_namespace_whose_registry_hangs_holds_up_no_other_and_not_its_own_restorations() {
    let neighbours = Neighbours::open("share").await;
    let (arena, registry) = (&neighbours.arena, stalling().await);
    arena.push("1.0.0", "one").await;
    arena.push("2.0.0", "stable").await;
    neighbours.create_in_crowd("good", arena.spec("2.0.0")).await;
    let ready = |condition: &object::Condition| condition.status == "True";
    object::until(&neighbours.crowd(), "good", "Ready", ready, LIMIT)
        .await
        .expect("ready");
    neighbours.create_crowd(&registry.host()).await;
    let hang = || async { Ok((registry.asked().len() > 100).then_some(())) };
    wait::until("the crowd hangs", LIMIT, PAUSE, hang).await.expect("hangs");

    let often = with(arena.spec("1.0.0"), &json!({ "interval": "5s", "timeout": "5s" }));
    in_time("the first delivery", arena.deliver("healthy", often)).await;
    let moved = arena.push("1.0.0", "two").await;
    in_time("a moved tag", arena.delivers("healthy", &moved.digest)).await;
    let config_maps = arena.config_maps();
    edit(&config_maps, "healthy-bundle").await;
    let restored = until_restored(&config_maps, "healthy-bundle", "two");
    in_time("a restoration", restored).await;

    let config_maps = Api::namespaced(arena.client.clone(), &neighbours.crowd);
    edit(&config_maps, "good-bundle").await;
    let restored = until_restored(&config_maps, "good-bundle", "stable");
    in_time("a restoration beside runs that hang", restored).await;
}

/// A way to `registry` that hangs from the moment on that the sender says so: connections end, and new ones are held.
pub(super) async fn until_it_hangs(registry: String) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let host = listener.local_addr().expect("address").to_string();
    let (sender, mut hangs) = watch::channel(false);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut from, _)) = listener.accept().await {
            if *hangs.borrow_and_update() {
                held.push(from);
                continue;
            }
            let (registry, mut hangs) = (registry.clone(), hangs.clone());
            tokio::spawn(async move {
                let mut to = TcpStream::connect(registry).await.expect("registry");
                // Either end is the end of the connection.
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                    _ = hangs.changed() => {}
                }
            });
        }
    });
    (host, sender)
}

#[tokio::test]
async fn a_config_map_is_restored_before_its_registry_is_asked() {
    let arena = Arena::open("share-restore").await;
    arena.push("1.0.0", "one").await;
    let (host, hang) = until_it_hangs(arena.registry.host().to_owned()).await;
    let often = json!({ "interval": "20s", "timeout": "20s" });
    let image = format!("{host}/{}:1.0.0", super::REPOSITORY);
    arena.deliver("app", with(spec(&image), &often)).await;
    hang.send_replace(true);
    // Older than what a run would take for an answer.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let config_maps = arena.config_maps();
    edit(&config_maps, "app-bundle").await;
    let edited = Instant::now();
    until_restored(&config_maps, "app-bundle", "one").await;
    let took = edited.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn a_config_map_that_is_edited_while_its_registry_hangs_does_not_wait_for_it() {
    let arena = Arena::open("share-meanwhile").await;
    arena.push("1.0.0", "one").await;
    let patient = json!({ "interval": "1h", "timeout": "10m" });
    arena.deliver("app", with(arena.spec("1.0.0"), &patient)).await;
    let registry = stalling().await;
    let image = format!("{}/acme/policy:1.0.0", registry.host());
    arena.patch("app", json!({ "spec": { "image": image } })).await;
    let hangs = || async { Ok((registry.asked().len() > 1).then_some(())) };
    wait::until("the run waits", LIMIT, PAUSE, hangs).await.expect("waits");
    let asked = registry.asked().len();
    let config_maps = arena.config_maps();
    for _ in 0..2 {
        edit(&config_maps, "app-bundle").await;
        in_time("a restoration", until_restored(&config_maps, "app-bundle", "one")).await;
    }
    assert_eq!(registry.asked().len(), asked, "the run that waited goes on");
}

#[tokio::test]
async fn a_registry_that_never_answers_is_met_once_and_not_by_each_object() {
    let neighbours = Neighbours::open("share-silent").await;
    let responder = Responder::start().await;
    neighbours.create_crowd(responder.host()).await;
    let unavailable = |object: &DynamicObject| {
        object::condition(object, "Ready").is_some_and(|condition| condition.reason == "RegistryUnavailable")
    };
    let told = || async {
        let all = neighbours.crowd().list(&ListParams::default()).await?.items;
        Ok(all.iter().all(unavailable).then_some(()))
    };
    wait::until("all objects say so", LIMIT, PAUSE, told)
        .await
        .expect("told");
    // As many as the namespace may have under way, their second attempts, and probes.
    let requests = responder.requests();
    assert!(requests < CROWD, "{requests} requests");
}

#[tokio::test]
async fn an_administrator_caps_how_long_a_run_takes() {
    let arena = Arena::with("share-cap", &["--max-timeout", "2s"]).await;
    let responder = Responder::start().await;
    let patient = json!({ "interval": "1h", "timeout": "10m" });
    arena
        .create("app", with(spec(&responder.image("silent")), &patient))
        .await;
    let object = arena.not_ready("app", "DeadlineExceeded").await;
    let message = condition(&object, "Ready").message;
    assert!(message.starts_with("the run did not end within 2 s"), "{message}");
}
