//! F12: the operator is killed before and after each of its writes, and what follows is as if it had not been.

use std::collections::BTreeMap;

use http::Method;
use kube::ResourceExt as _;
use kube::api::ListParams;
use policy_operator_harness::api_proxy::{ApiRequest, Reply};
use policy_operator_harness::image::{Bundle, PolicyImage, Pushed};
use policy_operator_harness::wait;
use rstest::rstest;
use serde_json::json;

use super::proxied::Proxied;
use super::{Arena, LIMIT, PAUSE, bytes, spec};

const FORGED: &[u8] = b"forged";

/// What the operator is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    FirstDelivery,
    MovedTag,
    RenamedTarget,
    Restoration,
}

/// F12, for every write of one kind of work: held back, or done and never answered, then `kill -9` and a new process.
#[rstest]
#[case::first_delivery("crash-first", Work::FirstDelivery)]
#[case::moved_tag("crash-moved", Work::MovedTag)]
#[case::renamed_target("crash-renamed", Work::RenamedTarget)]
#[case::restoration("crash-restored", Work::Restoration)]
#[tokio::test]
async fn a_kill_at_any_write_changes_nothing_in_the_end(#[case] name: &str, #[case] work: Work) {
    let mut world = Proxied::open(name).await;
    let writes = undisturbed(&world, work).await;
    assert!(writes > 0, "{work:?} writes");
    for number in 0..writes {
        crash(&mut world, work, number, "before", Reply::Hold).await;
        crash(&mut world, work, number, "after", Reply::ForwardAndHold).await;
    }
}

/// Does the work without a crash, and returns how many writes it takes.
async fn undisturbed(world: &Proxied, work: Work) -> usize {
    let name = "undisturbed";
    work.prepare(&world.arena, name).await;
    let before = world.proxy.asked().len();
    let digest = work.start(&world.arena, name).await;
    work.until_done(&world.arena, name, &digest).await;
    work.until_told(&world.arena, name).await;
    let asked = world.proxy.asked().split_off(before);
    asked.iter().filter(|asked| writes_about(asked, name)).count()
}

async fn crash(world: &mut Proxied, work: Work, number: usize, when: &str, reply: Reply) {
    let name = format!("app-{number}-{when}");
    work.prepare(&world.arena, &name).await;
    let (before, about) = (world.proxy.held(), name.clone());
    let count = std::sync::atomic::AtomicUsize::new(0);
    world.proxy.requests(move |asked| {
        let is_next = writes_about(asked, &about) && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == number;
        if is_next { reply.clone() } else { Reply::Pass }
    });
    let digest = work.start(&world.arena, &name).await;
    let reached = || async { Ok((world.proxy.held() > before).then_some(())) };
    let what = format!("write {number} of {work:?}");
    wait::until(&what, LIMIT, PAUSE, reached).await.expect(&what);
    world.arena.operator.process().kill().await.expect("killed");
    for (config_map, held) in config_maps(&world.arena, &name).await {
        assert!(work.may_hold(&name, &held), "{config_map} {when} {what} holds {held:?}");
    }

    world.proxy.heal();
    world.launch().await;
    world.arena.operator.ready().await.expect("ready");
    work.until_done(&world.arena, &name, &digest).await;
}

fn writes_about(asked: &ApiRequest, name: &str) -> bool {
    // What is created is named in the body.
    let is_creation = || asked.method == Method::POST && String::from_utf8_lossy(&asked.body).contains(name);
    asked.is_write() && (asked.path.contains(name) || is_creation())
}

/// The ConfigMaps that were made for an object, and what they hold.
async fn config_maps(arena: &Arena, name: &str) -> BTreeMap<String, Vec<u8>> {
    let found = arena
        .config_maps()
        .list(&ListParams::default())
        .await
        .expect("ConfigMaps");
    let ours = found
        .items
        .into_iter()
        .filter(|found| found.name_any().starts_with(name));
    ours.map(|found| (found.name_any(), super::bundle_in(&found))).collect()
}

fn answer(name: &str, version: u8) -> String {
    format!("{name} {version}")
}

async fn push(arena: &Arena, name: &str, version: u8) -> Pushed {
    let image = PolicyImage::new(Bundle::answering(&answer(name, version)).expect("bundle"));
    let pushed = image.push(arena.registry(), &format!("acme/{name}"), "stable").await;
    pushed.expect("pushed")
}

impl Work {
    /// All that goes before, so that nothing of it is left to do.
    async fn prepare(self, arena: &Arena, name: &str) {
        push(arena, name, 1).await;
        if self != Self::FirstDelivery {
            self.create(arena, name).await;
            arena.ready(name).await;
            arena.until_event(name, "delivered").await;
        }
    }

    async fn create(self, arena: &Arena, name: &str) {
        let image = format!("{}/acme/{name}:stable", arena.registry.host());
        arena.create(name, spec(&image)).await;
    }

    /// Gives the operator this work, and returns the digest that is delivered in the end.
    async fn start(self, arena: &Arena, name: &str) -> String {
        match self {
            Self::FirstDelivery => self.create(arena, name).await,
            Self::MovedTag => {
                let moved = push(arena, name, 2).await;
                let annotations = json!({ "reconcile.opcr.io/requestedAt": "now" });
                arena
                    .patch(name, json!({ "metadata": { "annotations": annotations } }))
                    .await;
                return moved.digest;
            }
            Self::RenamedTarget => {
                let target = json!({ "configMap": { "name": self.config_map(name) } });
                arena.patch(name, json!({ "spec": { "delivery": target } })).await;
            }
            Self::Restoration => {
                let forged = json!({ "binaryData": { "bundle.tar.gz": k8s_openapi::ByteString(FORGED.to_vec()) } });
                arena.patch_config_map(&self.config_map(name), forged).await;
            }
        }
        push(arena, name, 1).await.digest
    }

    /// The name of the ConfigMap in the end.
    fn config_map(self, name: &str) -> String {
        match self {
            Self::RenamedTarget => format!("{name}-renamed"),
            _ => format!("{name}-bundle"),
        }
    }

    fn version(self) -> u8 {
        if self == Self::MovedTag { 2 } else { 1 }
    }

    /// Whether a ConfigMap may hold this in the middle of the work.
    fn may_hold(self, name: &str, held: &[u8]) -> bool {
        let is_known_good = held == bytes(&answer(name, 1)) || held == bytes(&answer(name, self.version()));
        is_known_good || (self == Self::Restoration && held == FORGED)
    }

    /// Waits for the state that is the same with and without a crash: status and content agree, and nothing is left over.
    async fn until_done(self, arena: &Arena, name: &str, digest: &str) {
        arena.delivers(name, digest).await;
        let expected = BTreeMap::from([(self.config_map(name), bytes(&answer(name, self.version())))]);
        let done = || async { Ok((config_maps(arena, name).await == expected).then_some(())) };
        let what = format!("{name} holds what it should, and nothing else is left");
        wait::until(&what, LIMIT, PAUSE, done).await.expect(&what);
        arena.delivers(name, digest).await;
    }

    /// Waits for the event that comes last, where one comes.
    async fn until_told(self, arena: &Arena, name: &str) {
        let count = match self {
            Self::FirstDelivery | Self::RenamedTarget | Self::Restoration => 1,
            Self::MovedTag => 2,
        };
        let told = || async { Ok((arena.events(name).await.len() >= count).then_some(())) };
        wait::until("the event is there", LIMIT, PAUSE, told)
            .await
            .expect("told");
    }
}
