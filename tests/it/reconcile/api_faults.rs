//! An API server that refuses, forgets, repeats itself or answers from the past delays the operator and never misleads
//! it for good.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::join_all;
use http::Request;
use kube::Client;
use policy_operator_harness::api_proxy::{ApiRequest, EventReply, Reply};
use policy_operator_harness::cluster::AuditEntry;
use policy_operator_harness::image::{Bundle, PolicyImage, Pushed};
use policy_operator_harness::{object, wait};
use serde_json::{Value, json};

use super::metrics;
use super::proxied::{Proxied, bookmark_instead, expired_event};
use super::{Arena, PAUSE, bundle_in, bytes, condition, spec, status_of, with};

/// How long it may take until a watch has been failing for a minute and readiness says so.
const UNREADY: Duration = Duration::from_mins(3);
/// Most requests to an API server that refuses, in a second.
const REQUESTS_PER_SECOND: f64 = 5.0;

/// F08: 401, 429 and failing writes for longer than the watches are given. The process lives, asks seldom, keeps what
/// it delivered, says in `/readyz` what is wrong, and goes on by itself.
#[tokio::test]
async fn an_api_server_that_refuses_for_a_minute_makes_the_operator_unready_and_nothing_worse() {
    let retry_later = match Reply::failure(429, "TooManyRequests") {
        Reply::Answer(code, _, body) => Reply::Answer(code, vec![("retry-after", "1".to_owned())], body),
        other => other,
    };
    tokio::join!(
        refuse(
            "api-unauthorized",
            Reply::failure(401, "Unauthorized"),
            Some("401 Unauthorized: scripted")
        ),
        // The client asks again until its time is over.
        refuse("api-overloaded", retry_later, Some("within 10 s")),
        refuse("api-read-only", Reply::failure(500, "InternalError"), None),
    );
}

/// Answers every request with `refusal`; only writes, where no `cause` is expected in `/readyz`.
async fn refuse(name: &str, refusal: Reply, cause: Option<&str>) {
    let Proxied { mut arena, proxy } = Proxied::open(name).await;
    let often = json!({ "interval": "5s" });
    arena.push("stable", "one").await;
    arena.deliver("app", with(arena.spec("stable"), &often)).await;
    let only_writes = cause.is_none();
    let refuses = move |asked: &ApiRequest| asked.is_write() || !only_writes;
    proxy.requests(move |asked| if refuses(asked) { refusal.clone() } else { Reply::Pass });
    proxy.cut_watches();
    let (since, before) = (Instant::now(), proxy.asked().len());
    let moved = arena.push("stable", "two").await;
    if let Some(cause) = cause {
        let reason = until_unready(&arena).await;
        assert!(reason.starts_with("the watch of "), "{reason}");
        assert!(reason.contains(cause), "{reason}");
        let failing = "policy_operator_watches_failing{kind=\"policyimages\"}";
        assert!(metrics::value(&arena.operator, failing).await > 0.0);
    } else {
        let enough = || async {
            let count = proxy.asked()[before..].iter().filter(|asked| refuses(asked)).count();
            Ok((count > 5).then_some(()))
        };
        wait::until("some writes are refused", UNREADY, PAUSE, enough)
            .await
            .expect("refused");
        let (status, reason) = arena.operator.readiness().await.expect("answer");
        assert_eq!(status, 200, "it sees all: {reason}");
    }
    let count = u32::try_from(proxy.asked().len() - before).expect("few");
    let rate = f64::from(count) / since.elapsed().as_secs_f64();
    assert!(rate < REQUESTS_PER_SECOND, "{name}: {rate} requests per second");
    assert_eq!(arena.bundle("app").await, bytes("one"));
    let ended = arena.operator.process().ended().expect("known");
    assert!(ended.is_none(), "{name}: {ended:?}: {}", arena.operator.log_text());

    proxy.heal();
    arena.delivers("app", &moved.digest).await;
    assert_eq!(arena.bundle("app").await, bytes("two"));
    arena.operator.ready().await.expect("ready again");
}

async fn until_unready(arena: &Arena) -> String {
    let unready = || async {
        let (status, reason) = arena.operator.readiness().await?;
        Ok((status == 503).then_some(reason))
    };
    wait::until("readiness is false", UNREADY, Duration::from_millis(500), unready)
        .await
        .expect("unready")
}

/// Objects whose tags move, each with a repository of its own, and one whose ConfigMap is edited.
const MOVING: usize = 3;
const EDITED: &str = "edited";

/// What becomes of each event of a watch, by how many came before.
type EventFault = fn(usize, &Value) -> EventReply;

/// F09: watches that end every second, expire, say only that time passes, lose, repeat or swap events. Tags are followed
/// all the same, and once the operator may list again, all is as if nothing had been. An object that cannot be read is
/// among the others all the time.
#[tokio::test]
async fn watches_that_lie_change_nothing_for_good() {
    let world = Proxied::open("api-watches").await;
    let arena = &world.arena;
    arena.push("1.0.0", "one").await;
    arena.deliver(EDITED, arena.spec("1.0.0")).await;
    for number in 0..MOVING {
        push_moving(arena, number, "first").await;
        let image = format!("{}/acme/moving-{number}:stable", arena.registry.host());
        arena
            .create(
                &format!("moving-{number}"),
                with(spec(&image), &json!({ "interval": "5s" })),
            )
            .await;
    }
    for number in 0..MOVING {
        arena.ready(&format!("moving-{number}")).await;
    }
    create_unreadable(arena).await;

    world.proxy.requests(|asked| {
        if asked.is_watch() {
            Reply::PassFor(Duration::from_secs(1))
        } else {
            Reply::Pass
        }
    });
    world.proxy.cut_watches();
    follow(&world, "end every second").await;
    // Watches that expire come last, because each attempt is later than the one before.
    let faults: [(&str, EventFault); 5] = [
        ("repeat events", |_, _| EventReply::Double),
        ("swap events", |count, _| every_other(count, EventReply::Swap)),
        ("show bookmarks only", |_, event| bookmark_instead(event)),
        ("lose events", |count, _| every_other(count, EventReply::Drop)),
        ("expire", |count, _| {
            every_other(count, EventReply::End(expired_event()))
        }),
    ];
    for (what, fault) in faults {
        let count = AtomicUsize::new(0);
        world
            .proxy
            .events(move |_, event| fault(count.fetch_add(1, Ordering::SeqCst), event));
        follow(&world, what).await;
    }
    let phases = faults.len() + 1;
    let written = |entry: &AuditEntry| entry.resource == "configmaps" && entry.is_write() && entry.code < 300;
    let expected = (MOVING + 1) * (1 + phases) + 1;
    let writes = arena.audit(written);
    assert_eq!(writes.len(), expected, "no write but for news: {writes:#?}");
}

fn every_other(count: usize, fault: EventReply) -> EventReply {
    if count.is_multiple_of(2) {
        fault
    } else {
        EventReply::Pass
    }
}

async fn push_moving(arena: &Arena, number: usize, answer: &str) -> Pushed {
    let image = PolicyImage::new(Bundle::answering(&format!("{answer} {number}")).expect("bundle"));
    let repository = format!("acme/moving-{number}");
    image
        .push(arena.registry(), &repository, "stable")
        .await
        .expect("pushed")
}

/// Moves all tags and edits a ConfigMap while the watches do what they do, then ends that and looks.
async fn follow(world: &Proxied, what: &str) {
    let arena = &world.arena;
    let forged = json!({ "binaryData": { "bundle.tar.gz": BASE64_STANDARD.encode(what) } });
    arena.patch_config_map(&format!("{EDITED}-bundle"), forged).await;
    let moved = join_all((0..MOVING).map(|number| push_moving(arena, number, what))).await;
    for (number, moved) in moved.iter().enumerate() {
        arena.delivers(&format!("moving-{number}"), &moved.digest).await;
    }
    world.heal_and_relist();
    let restored = |found: Option<&_>| found.is_some_and(|found| bundle_in(found) == bytes("one"));
    arena
        .until_config_map(&format!("{EDITED}-bundle"), what, restored)
        .await;
    for number in 0..MOVING {
        assert_eq!(
            arena.bundle(&format!("moving-{number}")).await,
            bytes(&format!("{what} {number}"))
        );
    }
}

/// An object that Kubernetes takes and its clients in Rust cannot read.
async fn create_unreadable(arena: &Arena) {
    arena.deliver("unreadable", arena.spec("1.0.0")).await;
    let namespace = &arena.namespace;
    let path = format!("/apis/opcr.io/v1alpha1/namespaces/{namespace}/policyimages/unreadable");
    object::make_unreadable(&arena.client, &path).await.expect("unreadable");
}

async fn raw(client: &Client, path: &str) -> Value {
    let request = Request::get(path).body(Vec::new()).expect("request");
    client.request(request).await.expect("object")
}

/// F10: after a restart the API server answers with the past. What was published since is not taken back, and what
/// was refused as a conflict is looked at again.
#[tokio::test]
async fn an_answer_from_the_past_does_not_roll_back_what_was_published() {
    let mut world = Proxied::open("api-stale").await;
    let arena = &mut world.arena;
    let path = |group: &str, rest: &str| format!("/{group}/namespaces/{}/{rest}", arena.namespace);
    let paths = [
        path("apis/opcr.io/v1alpha1", "policyimages"),
        path("api/v1", "configmaps"),
        // A delivery of another process is looked at twice.
        path("api/v1", "configmaps/moved-bundle"),
        path("api/v1", "configmaps/moved-bundle"),
        path("api/v1", "configmaps/changed-bundle"),
    ];
    arena.push("stable", "one").await;
    arena.push("1.0.0", "one").await;
    arena.deliver("moved", arena.spec("stable")).await;
    arena.deliver("changed", arena.spec("1.0.0")).await;
    let past = join_all(
        paths
            .iter()
            .map(|path| async { (path.clone(), raw(&arena.client, path).await.to_string()) }),
    )
    .await;

    let two = arena.push("stable", "two").await;
    arena.push("2.0.0", "two").await;
    arena.run_again("moved").await;
    let image = arena.spec("2.0.0")["image"].clone();
    arena.patch("changed", json!({ "spec": { "image": image } })).await;
    arena.delivers("moved", &two.digest).await;
    arena.delivers("changed", &two.digest).await;
    arena.operator.process().stop().await.expect("stopped");

    let past = Mutex::new(past);
    world.proxy.requests(move |asked| {
        let mut past = past.lock().expect("no panic");
        let is_past = |(path, _): &(String, String)| *path == asked.path && !asked.is_write() && !asked.is_watch();
        match past.iter().position(is_past) {
            Some(index) => Reply::Answer(200, Vec::new(), past.swap_remove(index).1),
            None => Reply::Pass,
        }
    });
    let before = world.proxy.asked().len();
    world.launch().await;
    let arena = &mut world.arena;
    arena.operator.ready().await.expect("ready");
    for name in ["moved", "changed"] {
        arena.run_again(name).await;
        arena.delivers(name, &two.digest).await;
        assert_eq!(arena.bundle(name).await, bytes("two"), "{name}");
    }
    let one = BASE64_STANDARD.encode(bytes("one"));
    let asked = world.proxy.asked().split_off(before);
    let holds_one = |asked: &&ApiRequest| asked.is_write() && String::from_utf8_lossy(&asked.body).contains(&one);
    assert_eq!(
        asked.iter().filter(holds_one).count(),
        0,
        "the first bundle is not written again"
    );
    let refused = |entry: &AuditEntry| entry.name == "moved-bundle" && entry.code == 409;
    assert!(
        !arena.audit(refused).is_empty(),
        "only the version of now may be changed"
    );
}

/// F11: every second write is refused as a conflict: of the ConfigMap, or of the status.
#[tokio::test]
async fn conflicts_are_tried_again_and_told_nobody() {
    const OBJECTS: usize = 4;
    let Proxied { arena, proxy } = Proxied::open("api-conflict").await;
    let counts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    proxy.requests(move |asked| {
        let of_status = asked.path.ends_with("/status");
        // What is created is named in the body.
        let (path, body) = (&asked.path, String::from_utf8_lossy(&asked.body));
        let is_about = |name: &&str| path.contains(name) || asked.concerns("configmaps") && body.contains(name);
        let about = ["app-0", "app-1", "app-2", "app-3"].into_iter().find(is_about);
        let refused = about.is_some_and(|name| ["app-0", "app-2"].contains(&name) != of_status);
        if !asked.is_write() || asked.concerns("events") || !refused {
            return Reply::Pass;
        }
        let mut counts = counts.lock().expect("no panic");
        let count = counts.entry(format!("{} {about:?}", asked.method)).or_default();
        *count += 1;
        if *count % 2 == 1 {
            Reply::failure(409, "Conflict")
        } else {
            Reply::Pass
        }
    });
    arena.push("stable", "one").await;
    for number in 0..OBJECTS {
        arena.create(&format!("app-{number}"), arena.spec("stable")).await;
    }
    for number in 0..OBJECTS {
        let name = format!("app-{number}");
        arena.ready(&name).await;
        assert_eq!(arena.bundle(&name).await, bytes("one"));
        arena.until_event(&name, "delivered").await;
        let events = arena.events(&name).await;
        assert_eq!(events.len(), 1, "{events:?}");
    }
    let written = |entry: &AuditEntry| entry.resource == "configmaps" && entry.is_write();
    assert_eq!(
        arena.audit(written).len(),
        OBJECTS,
        "once each, for what the API server sees"
    );
}

/// F11: what another manager put beside ours stays, through a delivery and a restoration.
#[tokio::test]
async fn a_label_of_another_manager_is_kept() {
    let arena = Arena::open("api-label").await;
    arena.push("stable", "one").await;
    arena.deliver("app", arena.spec("stable")).await;
    let label = json!({ "metadata": { "labels": { "team": "acme" } }, "binaryData": { "bundle.tar.gz": "Zm9yZ2Vk" } });
    arena.patch_config_map("app-bundle", label).await;
    let restored = |found: Option<&_>| found.is_some_and(|found| bundle_in(found) == bytes("one"));
    arena.until_config_map("app-bundle", "is restored", restored).await;
    let moved = arena.push("stable", "two").await;
    arena.run_again("app").await;
    arena.delivers("app", &moved.digest).await;
    let config_map = arena.config_map("app-bundle").await;
    assert_eq!(config_map.metadata.labels.expect("labels")["team"], "acme");
    assert_eq!(arena.bundle("app").await, bytes("two"));
}

/// A status that a run wrote about what it saw says which generation that was; readers see that it is not of now.
#[tokio::test]
async fn a_status_about_an_older_generation_says_so() {
    let world = Proxied::open("api-generation").await;
    let arena = &world.arena;
    arena.create("app", arena.spec("stable")).await;
    arena.not_ready("app", "ImageNotFound").await;
    // From now on the operator does not see what changes.
    world.proxy.events(|asked, event| {
        if asked.concerns("policyimages") {
            bookmark_instead(event)
        } else {
            EventReply::Pass
        }
    });
    arena.patch("app", json!({ "spec": { "interval": "7m" } })).await;
    arena.push("stable", "one").await;
    let succeeded = |object: &_| condition(object, "Ready").status == "True";
    let object = arena.until("app", "ready as it was", succeeded).await;
    assert_eq!(object.metadata.generation, Some(2));
    assert_eq!(object.data["status"]["observedGeneration"], 1);
    assert_eq!(
        status_of(&object, "Ready"),
        None,
        "the condition is about the first generation"
    );
    world.heal_and_relist();
    let object = arena.ready("app").await;
    assert_eq!(object.data["status"]["observedGeneration"], 2);
}
/// F11: another manager that takes one of our annotations back again and again is answered, and not at any speed.
#[tokio::test]
async fn a_fight_over_an_annotation_wears_nobody_out() {
    const FIGHT: Duration = Duration::from_secs(10);
    let arena = Arena::open("api-fight").await;
    arena.push("stable", "one").await;
    arena.deliver("app", arena.spec("stable")).await;
    let count = || arena.writes()["configmaps"];
    let (before, start) = (count(), Instant::now());
    while start.elapsed() < FIGHT {
        let theirs = json!({ "metadata": { "annotations": { "opcr.io/source": fastrand::u64(..).to_string() } } });
        arena.patch_config_map("app-bundle", theirs).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answers = count() - before;
    println!("{answers} answers");
    assert!(answers > 0);
    assert!(answers < 20, "{answers}");
}
