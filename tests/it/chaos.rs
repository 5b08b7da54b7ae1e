//! Everything goes wrong at once, at random, and nothing untrue is ever delivered.
//!
//! Two replicas of the operator follow a dozen tags through proxies that break connections, while tags move, ConfigMaps
//! are edited, objects are suspended, replicas are killed or paused, the API server is killed, clocks step, and the disk
//! fails. All the while a watcher holds each version of each ConfigMap against what may be in it. In the end the faults
//! stop, and every object must settle on what its tag names, say so, and then write nothing more.
//!
//! Every second object has a registry with TLS, so that handshakes fail and stall.
//!
//! `CHAOS_SECONDS` (20) is how long the faults last, `CHAOS_SEED` repeats a run; `make soak MINUTES=10` runs it long. In
//! the second half of a run of five minutes or more no process is killed, and what the processes hold must not grow.
//!
//! Some faults are acts here, and each has tests of its own:
//!
//! | Fault | Tests |
//! |---|---|
//! | F01 a registry that limits requests | `registry::patience::a_long_wait_is_the_callers`, `a_wait_may_be_a_date`; `reconcile::failures::a_registry_that_asks_for_time_is_left_alone`, `reconcile::registry_faults::a_registry_that_asked_for_time_is_asked_again_after_it` |
//! | F02 a registry that fails | `registry::outages::an_endpoint_that_fails_is_unavailable_and_nothing_else_until_it_answers` |
//! | F03 connections that break | `registry::content::a_broken_download_goes_on_where_it_broke` |
//! | F04 answers that end early | `registry::content::a_manifest_that_breaks_off_is_asked_for_again_and_never_used`, `a_blob_that_ends_early_by_its_own_account_is_another_blob` |
//! | F05 slow peers | `registry::outages`, `reconcile::registry_faults::fifty_objects_on_a_slow_registry_delay_no_neighbour` |
//! | F06 names that do not resolve, or lead astray | `reconcile::registry_faults::a_name_that_does_not_resolve_is_an_outage_and_one_that_leads_astray_is_refused` |
//! | F07 certificates and authorities | `registry::network`, `reconcile::registry_faults::an_authority_that_is_replaced_in_its_secret_is_trusted_at_the_next_run` |
//! | F08 an API server that refuses | `reconcile::api_faults::an_api_server_that_refuses_for_a_minute_makes_the_operator_unready_and_nothing_worse` |
//! | F09 watches that lie | `reconcile::api_faults::watches_that_lie_change_nothing_for_good` |
//! | F10 answers from the past | `reconcile::api_faults::an_answer_from_the_past_does_not_roll_back_what_was_published` |
//! | F11 conflicts and other managers | `reconcile::api_faults::conflicts_are_tried_again_and_told_nobody`, `a_label_of_another_manager_is_kept`, `a_fight_over_an_annotation_wears_nobody_out` |
//! | F12 `kill -9` at every write | `reconcile::crash_points` |
//! | F13, F14 the end of a leader | `leader`, `reconcile::leadership` |

mod acts;
mod growth;
mod watcher;
mod world;

use std::time::{Duration, Instant};

use growth::Growth;
use world::World;

/// How long to wait between two acts.
const PAUSE: Duration = Duration::from_millis(250);
/// From how many seconds on a run is long enough to tell growth from noise.
const LONG: u64 = 300;
/// How long between two samples of what the processes hold.
const SAMPLE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_only_known_good_bundles_are_delivered_and_all_settles() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(20);
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let mut world = World::open(seed).await;
    world.settle().await;
    let at_rest = world.footprint();
    if seconds < LONG {
        break_things(&mut world, Duration::from_secs(seconds)).await;
    } else {
        break_things(&mut world, Duration::from_secs(seconds / 2)).await;
        let growth = grow_old(&mut world, Duration::from_secs(seconds / 2)).await;
        growth.check();
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
    world.writes_have_reasons();
}

async fn break_things(world: &mut World, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        world.act(false).await;
        world.watcher.check();
        tokio::time::sleep(PAUSE).await;
    }
}

/// As [`break_things`], but processes live on, and what they hold is sampled.
async fn grow_old(world: &mut World, time: Duration) -> Growth {
    world.heal().await;
    world.settle().await;
    let (start, mut growth, mut samples) = (Instant::now(), Growth::default(), 0);
    while start.elapsed() < time {
        world.act(true).await;
        world.watcher.check();
        if start.elapsed() > SAMPLE * samples {
            samples += 1;
            growth.sample(start.elapsed(), &world.footprints());
        }
        tokio::time::sleep(PAUSE).await;
    }
    growth
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
