use super::*;
use crate::domain::access::{RegistryAccess, TransportSettings};
use crate::domain::reference::ImageReference;

const HOST: &str = "registry.acme.example";

fn route() -> Route {
    route_to(HOST)
}

fn route_to(host: &str) -> Route {
    Route {
        host: host.to_owned(),
        settings: TransportSettings::default().digest(),
    }
}

/// The tenant `acme`, pulling this repository without credentials.
fn puller(repository: &str) -> Caller {
    puller_of("acme", repository)
}

fn puller_of(tenant: &str, repository: &str) -> Caller {
    let image: ImageReference = format!("{HOST}/{repository}").parse().unwrap();
    (tenant.into(), RegistryAccess::default().key(image.repository()))
}

fn silence() -> NetworkError {
    NetworkError::timed_out(HOST)
}

/// Circuits of which that of [`route`] is open.
async fn open() -> CircuitBreakers {
    let breakers = CircuitBreakers::default();
    for number in 0..FAILURES {
        let attempt = breakers.attempt(route(), puller(&number.to_string())).await;
        attempt.unwrap().failed(silence());
    }
    breakers
}

#[tokio::test]
async fn a_host_that_hangs_is_met_a_few_times_and_then_by_one_probe_at_a_time() {
    let breakers = open().await;
    assert!(breakers.is_open(&route()).await);
    let probe = breakers.attempt(route(), puller("a")).await.unwrap();
    for number in 0..100 {
        let refused = breakers.attempt(route(), puller(&number.to_string())).await;
        assert_eq!(refused.err(), Some(silence()));
    }
    probe.failed(NetworkError::timed_out("probe"));
    let next = breakers.attempt(route(), puller("a")).await.unwrap();
    let refused = breakers.attempt(route(), puller("b")).await;
    assert_eq!(refused.err(), Some(NetworkError::timed_out("probe")));
    drop(next);
}

#[tokio::test]
async fn the_first_answer_closes_the_circuit() {
    let breakers = open().await;
    breakers.attempt(route(), puller("a")).await.unwrap().answered();
    assert!(!breakers.is_open(&route()).await);
    let many: Vec<_> = futures::future::join_all((0..100).map(|_| breakers.attempt(route(), puller("b")))).await;
    assert!(many.iter().all(Result::is_ok));
}

#[tokio::test]
async fn answers_in_between_keep_it_closed() {
    let breakers = CircuitBreakers::default();
    for _ in 0..10 {
        for _ in 1..FAILURES {
            breakers.attempt(route(), puller("a")).await.unwrap().failed(silence());
        }
        breakers.attempt(route(), puller("b")).await.unwrap().answered();
    }
    assert!(!breakers.is_open(&route()).await);
}

#[tokio::test]
async fn other_hosts_and_other_transport_settings_are_not_concerned() {
    let breakers = open().await;
    let _probe = breakers.attempt(route(), puller("a")).await.unwrap();
    let insecure = TransportSettings {
        insecure: true,
        ..TransportSettings::default()
    };
    let settings = insecure.digest();
    assert!(
        breakers
            .attempt(Route { settings, ..route() }, puller("a"))
            .await
            .is_ok()
    );
    assert!(breakers.attempt(route_to("ghcr.io"), puller("a")).await.is_ok());
}

#[tokio::test]
async fn whoever_was_answered_is_not_stopped_by_the_failures_of_others() {
    let breakers = CircuitBreakers::default();
    breakers.attempt(route(), puller("good")).await.unwrap().answered();
    for _ in 0..FAILURES {
        breakers
            .attempt(route(), puller("bad"))
            .await
            .unwrap()
            .failed(silence());
    }
    let _probe = breakers.attempt(route(), puller("bad")).await.unwrap();
    let good = breakers.attempt(route(), puller("good")).await.unwrap();
    // Until it meets a failure itself.
    good.failed(silence());
    assert!(breakers.attempt(route(), puller("good")).await.is_err());
}

#[tokio::test]
async fn the_probe_of_one_tenant_does_not_stop_that_of_another() {
    let breakers = open().await;
    let hanging = breakers.attempt(route(), puller("hangs")).await.unwrap();
    assert!(breakers.attempt(route(), puller("other")).await.is_err());
    let other = breakers.attempt(route(), puller_of("innocent", "good")).await.unwrap();
    other.answered();
    assert!(!breakers.is_open(&route()).await);
    drop(hanging);
}

#[tokio::test]
async fn no_tenant_makes_the_answers_of_another_forgotten() {
    let breakers = CircuitBreakers::default();
    let innocent = || puller_of("innocent", "good");
    breakers.attempt(route(), innocent()).await.unwrap().answered();
    for number in 0..MAX_ANSWERED * 2 {
        let greedy = puller_of("greedy", &number.to_string());
        breakers.attempt(route(), greedy).await.unwrap().answered();
    }
    let circuit = breakers.0.get(&route()).await.unwrap();
    let circuit = lock(&circuit);
    assert!(circuit.answered.contains_key(&innocent()));
    assert_eq!(circuit.answered.len(), MAX_ANSWERED);
}

#[tokio::test]
async fn a_request_that_was_given_up_counts_only_after_a_while() {
    let breakers = CircuitBreakers::default();
    for _ in 0..10 {
        drop(breakers.attempt(route(), puller("a")).await.unwrap());
    }
    assert!(!breakers.is_open(&route()).await);
    for _ in 0..FAILURES {
        let mut attempt = breakers.attempt(route(), puller("a")).await.unwrap();
        attempt.started = Instant::now().checked_sub(PATIENCE).unwrap();
    }
    assert!(breakers.is_open(&route()).await);
}

#[tokio::test]
async fn a_probe_that_was_given_up_makes_room_for_the_next() {
    let breakers = open().await;
    drop(breakers.attempt(route(), puller("a")).await.unwrap());
    assert!(breakers.attempt(route(), puller("b")).await.is_ok());
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let breakers = CircuitBreakers::default();
    for number in 0..MAX_ANSWERED * 2 {
        let sender = puller(&number.to_string());
        breakers.attempt(route(), sender).await.unwrap().answered();
    }
    let circuit = breakers.0.get(&route()).await.unwrap();
    assert_eq!(lock(&circuit).answered.len(), MAX_ANSWERED);
    for number in 0..MAX_CIRCUITS * 2 {
        let route = route_to(&format!("{number}.example.com"));
        breakers.attempt(route, puller("a")).await.unwrap().failed(silence());
    }
    breakers.0.run_pending_tasks().await;
    assert!(breakers.0.entry_count() <= MAX_CIRCUITS);
}
