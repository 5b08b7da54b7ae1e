//! Everything goes wrong at once, at random, and nothing untrue is ever delivered.
//!
//! Two replicas of the operator follow a dozen tags through proxies that break connections, while tags move, ConfigMaps
//! are edited, objects are suspended, replicas are killed or paused, the API server is killed, clocks step, and the disk
//! fails. All the while a watcher holds each version of each ConfigMap against what may be in it. In the end the faults
//! stop, and every object must settle on what its tag names, say so, and then write nothing more.
//!
//! `CHAOS_SECONDS` (20) is how long the faults last, `CHAOS_SEED` repeats a run; `make soak MINUTES=10` runs it long.
//! Faults F01 to F05, F08 and F14 are acts here; F06, F07, F09 to F13 have tests of their own in `reconcile/`,
//! `registry/` and `leader`.

mod acts;
mod watcher;
mod world;

use std::time::{Duration, Instant};

use world::World;

/// How long to wait between two acts.
const PAUSE: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_only_known_good_bundles_are_delivered_and_all_settles() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(20);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let mut world = World::open(seed).await;
    world.settle().await;
    let at_rest = world.footprint();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        world.act().await;
        world.watcher.check();
        tokio::time::sleep(PAUSE).await;
    }
    world.heal().await;
    world.settle().await;
    world.watcher.check();
    let afterwards = world.footprint();
    println!("{}", world.summary());
    println!("at rest {at_rest:?}, afterwards {afterwards:?}");
    // New processes may have taken over; what one of them holds after an hour is what another held at the start.
    assert!(afterwards.descriptors <= at_rest.descriptors + 40, "{afterwards:?}");
    assert!(
        afterwards.resident_bytes <= at_rest.resident_bytes + (48 << 20),
        "{afterwards:?}"
    );
    world.comes_to_rest().await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "a person says how long, and which run to repeat"
)]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text:?} is not a number")),
    )
}
