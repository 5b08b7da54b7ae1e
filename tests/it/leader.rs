//! Leader election against a real API server: one leads, and what happens when it goes, hangs or is robbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use policy_operator::operator::leader::{LeaderElection, Leadership, Loss, Timing, identity};
use policy_operator_harness::cluster::ControlPlane;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const LEASE: Duration = Duration::from_secs(3);
const RENEW_DEADLINE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(400);
/// For what happens at once; generous, because the machine may be busy.
const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "policy-operator";

struct Arena {
    cluster: &'static ControlPlane,
    namespace: String,
    client: Client,
}

impl Arena {
    async fn open(prefix: &str) -> Self {
        let cluster = ControlPlane::shared().await.expect("control plane");
        let namespace = cluster.namespace(prefix).await.expect("namespace");
        let client = cluster.client().await.expect("client");
        Self {
            cluster,
            namespace,
            client,
        }
    }

    fn candidate(&self, pod: &str) -> LeaderElection {
        self.candidate_with(self.client.clone(), pod)
    }

    fn candidate_with(&self, client: Client, pod: &str) -> LeaderElection {
        let timing = Timing::new(LEASE, RENEW_DEADLINE, RETRY).expect("timing");
        LeaderElection::new(client, &self.namespace, NAME, identity(pod), timing)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn spec(&self) -> LeaseSpec {
        self.leases().get(NAME).await.expect("Lease").spec.expect("spec")
    }
}

async fn acquired(candidate: &LeaderElection) -> Leadership {
    timeout(SOON, candidate.acquire()).await.expect("leads")
}

async fn lost(leadership: &mut Leadership) -> Loss {
    timeout(SOON, leadership.lost()).await.expect("lost")
}

#[tokio::test]
async fn of_five_candidates_one_leads_at_a_time_and_all_get_their_turn() {
    let arena = Arena::open("leader-five").await;
    let leaders = Arc::new(AtomicUsize::new(0));
    let mut candidates = JoinSet::new();
    for pod in 0..5 {
        let (candidate, leaders) = (arena.candidate(&format!("pod-{pod}")), Arc::clone(&leaders));
        candidates.spawn(async move {
            let leadership = candidate.acquire().await;
            assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "two leaders at once");
            tokio::time::sleep(RETRY * 2).await;
            assert!(leadership.handle().holds());
            leaders.fetch_sub(1, Ordering::SeqCst);
            leadership.release().await.expect("released");
        });
    }
    let all = async {
        while let Some(ended) = candidates.join_next().await {
            ended.expect("no panic");
        }
    };
    timeout(SOON, all).await.expect("each led");
    let spec = arena.spec().await;
    assert_eq!(
        (spec.holder_identity.as_deref(), spec.lease_duration_seconds),
        (Some(""), Some(1))
    );
    assert_eq!(spec.lease_transitions, Some(4));
}

#[tokio::test]
async fn a_leader_stays_and_its_lease_says_so() {
    let arena = Arena::open("leader-stays").await;
    let leadership = acquired(&arena.candidate("pod-a")).await;
    let before = arena.spec().await;
    tokio::time::sleep(LEASE + RETRY).await;
    let after = arena.spec().await;
    assert!(leadership.handle().holds());
    assert!(after.holder_identity.expect("holder").starts_with("pod-a_"));
    assert_eq!(
        (after.lease_transitions, after.acquire_time),
        (Some(0), before.acquire_time)
    );
    assert!(after.renew_time > before.renew_time);
}

#[tokio::test]
async fn a_released_lease_changes_hands_without_waiting_for_its_end() {
    let arena = Arena::open("leader-release").await;
    let first = acquired(&arena.candidate("pod-a")).await;
    let handle = first.handle();
    let second = arena.candidate("pod-b");
    let waiting = tokio::spawn(async move { second.acquire().await });
    tokio::time::sleep(RETRY * 2).await;
    assert!(!waiting.is_finished());
    let released = Instant::now();
    first.release().await.expect("released");
    assert!(!handle.holds(), "who gave the Lease up writes no more");
    let _second = timeout(SOON, waiting).await.expect("leads").expect("no panic");
    assert!(released.elapsed() < LEASE, "{:?}", released.elapsed());
}

#[tokio::test]
async fn the_lease_of_a_crashed_leader_is_taken_after_its_end_and_not_before() {
    let arena = Arena::open("leader-crash").await;
    let first = acquired(&arena.candidate("pod-a")).await;
    let crashed = Instant::now();
    drop(first);
    let mut second = acquired(&arena.candidate("pod-a")).await;
    // Its last renewal was up to one retry period before the crash.
    assert!(
        crashed.elapsed() > LEASE.checked_sub(RETRY).expect("longer"),
        "{:?}",
        crashed.elapsed()
    );
    assert_eq!(arena.spec().await.lease_transitions, Some(1));
    assert!(timeout(RETRY * 3, second.lost()).await.is_err(), "keeps it");
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_before_another_starts() {
    let arena = Arena::open("leader-cut").await;
    let proxy = Proxy::start(arena.cluster).await;
    let mut first = acquired(&arena.candidate_with(proxy.client.clone(), "pod-a")).await;
    let handle = first.handle();
    let second = arena.candidate("pod-b");
    let waiting = tokio::spawn(async move {
        let leadership = second.acquire().await;
        (leadership, Instant::now())
    });
    proxy.hang.send_replace(true);
    let loss = lost(&mut first).await;
    let stopped = Instant::now();
    assert!(matches!(&loss, Loss::NotRenewed { .. }), "{loss}");
    assert!(!handle.holds());
    let (_second, started) = timeout(SOON, waiting).await.expect("leads").expect("no panic");
    assert!(stopped < started, "the old leader stopped {:?} late", stopped - started);
}

/// One thread runs the test and the renewal: blocking it is what `SIGSTOP` does to a process.
#[tokio::test]
async fn a_leader_that_was_stopped_knows_at_once_when_it_goes_on() {
    let arena = Arena::open("leader-stopped").await;
    let mut leadership = acquired(&arena.candidate("pod-a")).await;
    let handle = leadership.handle();
    assert!(handle.holds());
    std::thread::sleep(LEASE);
    assert!(!handle.holds(), "before any task could notice");
    let loss = lost(&mut leadership).await;
    assert!(
        matches!(&loss, Loss::NotRenewed { .. }),
        "although the API server answers: {loss}"
    );
}

#[tokio::test]
async fn a_leader_that_is_robbed_gives_up_and_names_the_robber() {
    let arena = Arena::open("leader-robbed").await;
    let mut first = acquired(&arena.candidate("pod-a")).await;
    let robbery = json!({ "spec": { "holderIdentity": "by hand" } });
    arena
        .leases()
        .patch(NAME, &PatchParams::default(), &Patch::Merge(robbery))
        .await
        .expect("patched");
    let loss = lost(&mut first).await;
    assert_eq!(
        loss,
        Loss::Taken {
            name: NAME.to_owned(),
            holder: "by hand".to_owned()
        }
    );
    assert!(!first.handle().holds());
    first.release().await.expect("nothing to release");
    assert_eq!(arena.spec().await.holder_identity.as_deref(), Some("by hand"));
}

#[tokio::test]
async fn a_lease_that_is_deleted_or_touched_by_others_is_kept() {
    let arena = Arena::open("leader-deleted").await;
    let mut leadership = acquired(&arena.candidate("pod-a")).await;
    arena
        .leases()
        .delete(NAME, &kube::api::DeleteParams::default())
        .await
        .expect("deleted");
    assert!(timeout(RENEW_DEADLINE, leadership.lost()).await.is_err(), "made again");
    let touch = json!({ "metadata": { "labels": { "team": "acme" } } });
    arena
        .leases()
        .patch(NAME, &PatchParams::default(), &Patch::Merge(touch))
        .await
        .expect("patched");
    assert!(
        timeout(RENEW_DEADLINE + RETRY, leadership.lost()).await.is_err(),
        "renewed"
    );
    let lease = arena.leases().get(NAME).await.expect("Lease");
    assert_eq!(
        lease.metadata.labels.expect("labels").get("team").map(String::as_str),
        Some("acme")
    );
}

/// A way to the API server that can be made to hang: connections stay open and nothing comes through.
struct Proxy {
    client: Client,
    hang: watch::Sender<bool>,
}

impl Proxy {
    async fn start(cluster: &ControlPlane) -> Self {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("kubeconfig");
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .expect("config");
        let target = config.cluster_url.authority().expect("authority").as_str().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        config.cluster_url = format!("https://{address}/").parse().expect("URL");
        let (hang, hangs) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(forward(near, target.clone(), hangs.clone()));
            }
        });
        Self {
            client: Client::try_from(config).expect("client"),
            hang,
        }
    }
}

async fn forward(mut near: TcpStream, target: String, mut hangs: watch::Receiver<bool>) {
    let mut far = TcpStream::connect(target).await.expect("API server");
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        _ = hangs.wait_for(|hangs| *hangs) => {}
    }
    std::future::pending::<()>().await;
}
