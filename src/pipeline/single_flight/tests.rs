use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

static TENANT: LazyLock<Tenant> = LazyLock::new(Tenant::default);

fn shared() -> SingleFlight<&'static str, u32, String> {
    SingleFlight::new(10)
}

/// Takes a while, and returns how often it was done.
fn count(counter: &Arc<AtomicU32>) -> impl Future<Output = Result<u32, String>> + Send + use<> {
    let counter = Arc::clone(counter);
    async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(counter.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

fn since(moment: Instant) -> Freshness {
    Freshness::Since(moment)
}

#[tokio::test]
async fn concurrent_callers_share_one_result() {
    let (shared, counter) = (shared(), Arc::default());
    let now = since(Instant::now());
    let results = (0..50).map(|_| shared.get_fresh("tag", &TENANT, now, || count(&counter)));
    let results = futures::future::join_all(results).await;
    assert!(results.iter().all(|result| result.outcome == Ok(1)));
    assert_eq!(counter.load(Ordering::SeqCst), 1);
    assert!(lock(&shared.running).is_empty());
}

#[tokio::test]
async fn a_result_older_than_required_is_computed_again() {
    let (shared, counter) = (shared(), Arc::default());
    let first = shared
        .get_fresh("tag", &TENANT, Freshness::recent(), || count(&counter))
        .await;
    let second = shared
        .get_fresh("tag", &TENANT, since(first.started), || count(&counter))
        .await;
    let third = shared
        .get_fresh("tag", &TENANT, since(Instant::now()), || count(&counter))
        .await;
    assert_eq!((second.outcome, third.outcome), (Ok(1), Ok(2)));
}

#[tokio::test]
async fn who_wants_a_new_result_joins_no_work_under_way_and_others_join_the_newest() {
    let (shared, counter) = (shared(), Arc::default());
    let get = |freshness| shared.get_fresh("tag", &TENANT, freshness, || count(&counter));
    let began = since(Instant::now());
    let (first, new, joined) = tokio::join!(get(began), get(Freshness::New), get(began));
    assert_eq!((first.outcome, new.outcome), (Ok(1), Ok(2)));
    assert_eq!(joined.outcome, Ok(2));
}

#[tokio::test]
async fn work_that_began_too_early_is_waited_for_and_done_again() {
    let (shared, counter) = (shared(), Arc::default());
    let early = shared.get_fresh("tag", &TENANT, Freshness::recent(), || count(&counter));
    let late = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = since(Instant::now());
        let some = (0..10).map(|_| shared.get_fresh("tag", &TENANT, now, || count(&counter)));
        futures::future::join_all(some).await
    };
    let (early, late) = tokio::join!(early, late);
    assert_eq!(early.outcome, Ok(1));
    assert!(late.iter().all(|result| result.outcome == Ok(2)));
}

#[tokio::test]
async fn a_success_is_final_and_a_failure_is_not() {
    let shared = shared();
    let get = async |freshness, outcome: Result<u32, &'static str>| {
        let work = async move { outcome.map_err(str::to_owned) };
        shared
            .get_or_retry("digest", &TENANT, freshness, |value| *value != 3, || work)
            .await
    };
    assert!(get(since(Instant::now()), Err("down")).await.is_err());
    assert!(get(Freshness::recent(), Ok(1)).await.is_err());
    assert_eq!(get(since(Instant::now()), Ok(2)).await, Ok(2));
    assert_eq!(get(since(Instant::now()), Err("down")).await, Ok(2));
}

#[tokio::test]
async fn a_failure_that_took_long_is_shared_from_its_end() {
    let (shared, counter) = (shared(), Arc::new(AtomicU32::new(0)));
    let fail = || {
        let counter = Arc::clone(&counter);
        async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Err::<u32, _>(counter.fetch_add(1, Ordering::SeqCst).to_string())
        }
    };
    let began = Instant::now();
    assert!(
        shared
            .get_fresh("tag", &TENANT, since(began), fail)
            .await
            .outcome
            .is_err()
    );
    let during = since(began + Duration::from_millis(15));
    assert!(shared.get_fresh("tag", &TENANT, during, fail).await.outcome.is_err());
    assert!(
        shared
            .get_or_retry("tag", &TENANT, during, |_| true, fail)
            .await
            .is_err()
    );
    assert_eq!(counter.load(Ordering::SeqCst), 1);
    assert!(
        shared
            .get_fresh("tag", &TENANT, since(Instant::now()), fail)
            .await
            .outcome
            .is_err()
    );
    assert_eq!(counter.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_success_that_is_not_usable_any_more_is_computed_again() {
    let shared = shared();
    let get = async |usable: bool, value| {
        let work = async move { Ok(value) };
        shared
            .get_or_retry("digest", &TENANT, Freshness::recent(), |_| usable, || work)
            .await
    };
    assert_eq!(get(true, 1).await, Ok(1));
    assert_eq!(get(false, 2).await, Ok(2));
    assert_eq!(get(true, 3).await, Ok(2));
}

#[tokio::test]
async fn callers_that_give_up_do_not_stop_the_work_for_those_who_wait() {
    let (shared, counter) = (shared(), Arc::default());
    let patient = async {
        // Not the first, whose work it is.
        tokio::task::yield_now().await;
        shared
            .get_fresh("tag", &TENANT, Freshness::recent(), || count(&counter))
            .await
    };
    let impatient = async {
        let first = shared.get_fresh("tag", &TENANT, Freshness::recent(), || count(&counter));
        timeout(Duration::from_millis(5), first).await.is_err()
    };
    let (gave_up, result) = tokio::join!(impatient, patient);
    assert!(gave_up);
    assert_eq!(result.outcome, Ok(1));
    assert_eq!(counter.load(Ordering::SeqCst), 1, "it was done once");
}

#[tokio::test]
async fn work_that_nobody_waits_for_is_cancelled_and_forgotten() {
    let shared = shared();
    let (alive, mut observe) = tokio::sync::oneshot::channel::<()>();
    let never = shared.get_fresh("tag", &TENANT, Freshness::recent(), || async move {
        let _alive = alive;
        std::future::pending().await
    });
    assert!(timeout(Duration::from_millis(5), never).await.is_err());
    assert!(lock(&shared.running).is_empty());
    timeout(Duration::from_secs(20), &mut observe)
        .await
        .expect("cancelled")
        .expect_err("dropped");
}

#[tokio::test]
async fn a_panic_is_that_of_its_caller_and_another_does_the_work() {
    use std::panic::AssertUnwindSafe;

    use futures::FutureExt as _;

    let (shared, counter) = (shared(), Arc::default());
    let panics = shared.get_fresh("tag", &TENANT, Freshness::recent(), || async {
        tokio::task::yield_now().await;
        panic!("on purpose")
    });
    let other = async {
        tokio::task::yield_now().await;
        shared
            .get_fresh("tag", &TENANT, Freshness::recent(), || count(&counter))
            .await
    };
    let (panicked, result) = tokio::join!(AssertUnwindSafe(panics).catch_unwind(), other);
    assert!(panicked.is_err());
    assert_eq!(result.outcome, Ok(1));
}

#[tokio::test]
async fn a_result_that_began_later_is_not_replaced_by_one_that_ended_later() {
    let shared = shared();
    let value = |value, delay| async move {
        tokio::time::sleep(Duration::from_millis(delay)).await;
        Ok(value)
    };
    let slow = shared.get_fresh("tag", &TENANT, Freshness::recent(), || value(1, 40));
    let new = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        shared.get_fresh("tag", &TENANT, Freshness::New, || value(2, 0)).await
    };
    let (slow, new) = tokio::join!(slow, new);
    assert_eq!((slow.outcome, new.outcome), (Ok(1), Ok(2)));
    let cached = shared
        .get_fresh("tag", &TENANT, Freshness::recent(), || value(3, 0))
        .await;
    assert_eq!(cached.outcome, Ok(2));
}

/// Its share may be used up, or its probe of a host under way; that is nothing to another.
#[tokio::test]
async fn a_failure_of_one_tenant_is_none_of_another() {
    let (shared, counter) = (shared(), Arc::new(AtomicU32::new(0)));
    let fails = || std::future::ready(Err("no share".to_owned()));
    let failed = shared.get_fresh("tag", &"a".into(), Freshness::recent(), fails).await;
    assert!(failed.outcome.is_err());
    let again = shared
        .get_fresh("tag", &"a".into(), Freshness::recent(), || count(&counter))
        .await;
    assert!(again.outcome.is_err(), "its own failure is shared");
    let other = shared
        .get_fresh("tag", &"b".into(), Freshness::recent(), || count(&counter))
        .await;
    assert_eq!(other.outcome, Ok(1));
    let success = shared
        .get_fresh("tag", &"a".into(), Freshness::recent(), || count(&counter))
        .await;
    assert_eq!(
        (success.outcome, counter.load(Ordering::SeqCst)),
        (Ok(1), 1),
        "successes are shared"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tenant_does_not_wait_long_for_the_work_of_another() {
    let (shared, counter) = (shared(), Arc::new(AtomicU32::new(0)));
    let (first, second) = (Tenant::from("a"), Tenant::from("b"));
    let hangs = shared.get_fresh("tag", &first, Freshness::recent(), std::future::pending);
    let joins = async {
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        let result = shared
            .get_fresh("tag", &second, since(Instant::now()), || count(&counter))
            .await;
        (result.outcome, began.elapsed())
    };
    let (outcome, took) = tokio::select! {
        _ = hangs => panic!("it hangs"),
        joined = joins => joined,
    };
    assert_eq!(outcome, Ok(1));
    assert!(
        (WAIT_FOR_OTHER..WAIT_FOR_OTHER + Duration::from_secs(1)).contains(&took),
        "{took:?}"
    );
}
