//! `run`: starts the parts of the operator, and shuts them down.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::Reporter;
use kube::runtime::reflector::Store;
use kube::{Client, Config};

use super::api::condition::READY;
use super::args::{PROGRAM, RunArguments};
use super::connect::{self, ConnectError};
use super::controller::context::Context;
use super::controller::state::StateCache;
use super::controller::watch::WatchScope;
use super::controller::watch::health::WatchHealth;
use super::controller::{self, View, Watches};
use super::leader::{self, LeaderElection, Leadership, Loss, Timing};
use super::metrics::Metrics;
use super::objects::ClusterObjects;
use super::status::StatusWriter;
use super::steps::validate::OperatorOptions;
use super::write_gate::WriteGate;
use crate::adapters::registry::observer::RequestObserver;
use crate::domain::bundle::Limits;
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;
use crate::pipeline::single_flight::CacheObserver;
use crate::runtime::health::{self, Readiness};
use crate::runtime::listen::{self, BindError};
use crate::runtime::setup::{self, SetupError};
use crate::runtime::signals::Shutdown;

/// The name of the Lease that replicas compete for.
const LEASE_NAME: &str = "policy-operator";

/// How long runs under way may take to end after a signal. The default grace period of a pod is 30 s.
const DRAIN: Duration = Duration::from_secs(20);

/// How often the objects are counted for metrics.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// Why the operator stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// The API server cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The adapters cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Signals cannot be received.
    #[error("signals cannot be received")]
    Signal(#[from] std::io::Error),
    /// The namespace of the Lease is not known.
    #[error("'--leader-elect' needs a namespace for its Lease: set '--leader-elect-namespace', or run in a pod")]
    FindLeaseNamespace,
    /// Another replica may lead now.
    #[error("leadership was lost, so this process stops before it writes again: {0}")]
    LeadershipLost(Loss),
    /// A watch panicked. The rest could go on, but nothing would be watched, and no probe would show it.
    #[error("a watch ended by itself, which is a bug; this process stops so that it is restarted")]
    ControllerExited,
}

/// Runs until a signal asks to stop, or leadership is lost.
///
/// # Errors
/// [`RunError`].
pub(super) async fn run(arguments: RunArguments) -> Result<(), RunError> {
    let config = connect::config(arguments.kubeconfig.as_deref()).await?;
    let api_server = connect::addresses(&config).await?;
    let client = connect::client(config.clone())?;
    let metrics = Arc::new(Metrics::new());
    let observer: Arc<dyn RequestObserver> = metrics.clone();
    let adapters = setup::adapters(PROGRAM, &arguments.registry, &api_server, observer)?;
    let watches = WatchHealth::default();
    let readiness = Readiness::waiting_for("the PolicyImages have not been listed yet").unless(reason_of(&watches));
    let stop = Shutdown::on_signal()?;
    let health = listen::bind("--health-addr", arguments.health_addr).await?;
    let scrapes = listen::bind("--metrics-addr", arguments.metrics_addr).await?;
    tokio::spawn(listen::serve(
        health,
        health::health(readiness.clone()),
        stop.requested(),
    ));
    tokio::spawn(listen::serve(
        scrapes,
        health::metrics(encoder(&metrics, &watches)),
        stop.requested(),
    ));

    let leadership = if arguments.leader_elect {
        // A replica that waits for its turn is ready: a rolling update must not wait for it.
        readiness.ready();
        let election = election(&arguments, &config, client.clone())?;
        tokio::select! {
            leadership = election.acquire() => Some(leadership),
            () = stop.requested() => return Ok(()),
        }
    } else {
        None
    };
    metrics.leads(true);
    let context = Arc::new(context(
        &arguments,
        client.clone(),
        adapters,
        &metrics,
        leadership.as_ref(),
    ));
    work(&arguments, client, context, (readiness, watches), stop, leadership).await
}

fn reason_of(watches: &WatchHealth) -> impl Fn() -> Option<String> + Send + Sync + 'static {
    let watches = watches.clone();
    move || watches.reason()
}

fn encoder(metrics: &Arc<Metrics>, watches: &WatchHealth) -> health::Encoder {
    let (metrics, watches) = (Arc::clone(metrics), watches.clone());
    Arc::new(move || {
        watches.measure(&metrics);
        metrics.encode()
    })
}

fn election(arguments: &RunArguments, config: &Config, client: Client) -> Result<LeaderElection, RunError> {
    let in_cluster = (!connect::is_outside(arguments.kubeconfig.as_deref())).then(|| config.default_namespace.clone());
    let namespace = arguments
        .leader_elect_namespace
        .clone()
        .or(in_cluster)
        .ok_or(RunError::FindLeaseNamespace)?;
    let identity = leader::identity(&connect::host_name());
    Ok(LeaderElection::new(
        client,
        &namespace,
        LEASE_NAME,
        identity,
        Timing::default(),
    ))
}

fn context<P: Ports>(
    arguments: &RunArguments,
    client: Client,
    ports: P,
    metrics: &Arc<Metrics>,
    leadership: Option<&Leadership>,
) -> Context<P> {
    let reporter = Reporter {
        controller: "policy-operator".to_owned(),
        instance: Some(connect::host_name()),
    };
    let observer: Arc<dyn CacheObserver> = metrics.clone();
    let gate = WriteGate::new(client.clone(), leadership.map(Leadership::handle));
    Context {
        objects: ClusterObjects::new(client),
        pipeline: Pipeline::new(ports, Limits::default(), &observer),
        options: OperatorOptions {
            require_verification: arguments.require_verification,
            max_timeout: arguments.max_timeout,
        },
        states: StateCache::default(),
        status: StatusWriter::new(gate.clone(), reporter),
        metrics: Arc::clone(metrics),
        concurrency: usize::from(arguments.concurrency),
        gate,
    }
}

/// Runs the controller over all watched namespaces.
async fn work<P: Ports>(
    arguments: &RunArguments,
    client: Client,
    context: Arc<Context<P>>,
    (readiness, health): (Readiness, WatchHealth),
    stop: Shutdown,
    leadership: Option<Leadership>,
) -> Result<(), RunError> {
    let scope = |namespace| WatchScope {
        client: client.clone(),
        namespace,
        health: health.clone(),
        metrics: Arc::clone(&context.metrics),
    };
    let namespaces = namespaces(&arguments.watch_namespaces).into_iter();
    let (watches, views) = namespaces.map(|namespace| Watches::new(scope(namespace))).unzip();
    tokio::spawn(announce(views, readiness, Arc::clone(&context.metrics)));
    let drained = async {
        controller::run(watches, context, stop.requested()).await;
        if stop.is_requested() {
            Ok(())
        } else {
            Err(RunError::ControllerExited)
        }
    };
    let timed = async {
        stop.requested().await;
        tracing::info!("stopping: waiting for the runs under way");
        tokio::time::sleep(DRAIN).await;
    };
    let Some(mut leadership) = leadership else {
        return tokio::select! { ended = drained => ended, () = timed => Ok(()) };
    };
    tokio::select! {
        ended = drained => ended?,
        () = timed => {}
        loss = leadership.lost() => return Err(RunError::LeadershipLost(loss)),
    }
    if let Err(error) = leadership.release().await {
        tracing::warn!(%error, "the Lease was not released; another replica takes over when it runs out");
    }
    Ok(())
}

/// The namespaces to watch, each once: two controllers would run the same objects at the same time. One for all if
/// none is named.
fn namespaces(named: &[String]) -> Vec<Option<String>> {
    let named: BTreeSet<&str> = named.iter().map(|name| name.trim()).collect();
    let named: Vec<_> = named
        .into_iter()
        .filter(|name| !name.is_empty())
        .map(|name| Some(name.to_owned()))
        .collect();
    if named.is_empty() { vec![None] } else { named }
}

/// Readiness follows the first complete list of every watch. After that the objects are counted from time to time.
async fn announce(views: Vec<View>, readiness: Readiness, metrics: Arc<Metrics>) {
    let mut stores = Vec::new();
    for View { listed, policy_images } in views {
        if listed.await.is_err() {
            return;
        }
        stores.push(policy_images);
    }
    tracing::info!("all PolicyImages are listed");
    readiness.ready();
    loop {
        let objects = stores.iter().flat_map(Store::state);
        let (ready, not_ready): (Vec<_>, Vec<_>) = objects.partition(|object| {
            let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
            conditions.any(|condition| condition.type_ == READY && condition.status == "True")
        });
        metrics.policy_images(ready.len() as u64, not_ready.len() as u64);
        drop((ready, not_ready));
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_is_watched_once_and_all_where_none_is_named() {
        let watched = |named: &[&str]| namespaces(&named.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(watched(&[]), [None]);
        assert_eq!(watched(&["", " "]), [None]);
        assert_eq!(
            watched(&["b", " a", "b", ""]),
            [Some("a".to_owned()), Some("b".to_owned())]
        );
    }
}
