//! Runs one scenario and measures it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::api::{Api, DynamicObject, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::object;
use policy_operator_harness::operator::{Operator, OperatorOptions, cpu, peak_rss};
use policy_operator_harness::process::{Process, Program};
use policy_operator_harness::registry::{Counts, InProcess, InProcessOptions};

use crate::scenario::{Images, Scenario};

/// How many requests that create objects are under way at once.
const CLIENTS: usize = 16;
/// After the last object is ready: time for the events, which are written last.
const SETTLE: Duration = Duration::from_secs(2);
/// When to give up.
const LIMIT: Duration = Duration::from_mins(10);

/// What one run cost.
pub(crate) struct Measurement {
    pub(crate) objects: usize,
    /// From the first creation to the last object's readiness.
    pub(crate) wall: Duration,
    /// In bytes.
    pub(crate) peak_rss: u64,
    pub(crate) cpu: Duration,
    pub(crate) registry: Counts,
    /// Requests to the API server, by verb and resource; reads too.
    pub(crate) api: BTreeMap<String, usize>,
    /// The writes during the idle time.
    pub(crate) idle_writes: usize,
    pub(crate) idle_cpu: Duration,
}

/// What to run, and for how long.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) operator: PathBuf,
    pub(crate) objects: usize,
    pub(crate) idle: Duration,
}

pub(crate) async fn measure(scenario: Scenario, plan: &Plan) -> Result<Measurement> {
    let registry = InProcess::start(InProcessOptions::default()).await?;
    let images = scenario.prepare(&registry, plan.objects).await?;
    let cluster = ControlPlane::start().await?;
    let namespace = cluster.namespace("bench").await?;
    let mut subject = Subject::start(scenario, plan, &cluster).await?;
    // Pushes and signatures are not the operator's.
    let _ = registry.take_counts();

    let client = cluster.client().await?;
    let wall = tokio::select! {
        wall = create_and_wait(&client, &namespace, &images) => wall?,
        ended = subject.process().wait(LIMIT) => bail!("ended ({:?}):\n{}", ended?, subject.process().log_text()),
    };
    tokio::time::sleep(SETTLE).await;
    let process = subject.process().id();
    let (peak_rss, cpu_busy) = (peak_rss(process)?, cpu(process)?);
    let writes = || {
        Ok::<_, anyhow::Error>(
            cluster
                .audit(policy_operator_harness::cluster::AuditEntry::is_write)?
                .len(),
        )
    };
    let (counted, written) = (api_requests(&cluster)?, writes()?);
    let requested = registry.take_counts();

    tokio::time::sleep(plan.idle).await;
    let measurement = Measurement {
        objects: images.references.len(),
        wall,
        peak_rss,
        cpu: cpu_busy,
        registry: requested,
        api: counted,
        idle_writes: writes()? - written,
        idle_cpu: cpu(process)?.saturating_sub(cpu_busy),
    };
    subject.process().stop().await?;
    cluster.stop().await?;
    Ok(measurement)
}

/// The process that is measured.
enum Subject {
    Operator(Operator),
    Floor(Process),
}

impl Subject {
    async fn start(scenario: Scenario, plan: &Plan, cluster: &ControlPlane) -> Result<Self> {
        let kubeconfig = cluster.operator_kubeconfig().await?;
        if scenario == Scenario::Floor {
            let program = Program::new(std::env::current_exe()?).arg("floor").arg(kubeconfig);
            return Ok(Self::Floor(program.start(cluster.directory().file("floor.log"))?));
        }
        let binary = plan.operator.clone();
        let mut operator = Operator::start(&OperatorOptions {
            binary,
            kubeconfig,
            ..OperatorOptions::default()
        })?;
        operator.ready().await?;
        Ok(Self::Operator(operator))
    }

    fn process(&mut self) -> &mut Process {
        match self {
            Self::Operator(operator) => operator.process(),
            Self::Floor(process) => process,
        }
    }
}

async fn create_and_wait(client: &Client, namespace: &str, images: &Images) -> Result<Duration> {
    let api = object::api(client.clone(), namespace);
    let started = Instant::now();
    let create = images.references.iter().enumerate().map(|(number, image)| {
        let api = api.clone();
        async move {
            let name = format!("policy-{number}");
            let object = object::policy_image(namespace, &name, image, images.public_key.as_deref())?;
            api.create(&PostParams::default(), &object).await?;
            anyhow::Ok(())
        }
    });
    let create = stream::iter(create).buffer_unordered(CLIENTS).try_collect::<()>();
    let wait = until_all_ready(&api, images.references.len());
    tokio::time::timeout(LIMIT, async { tokio::try_join!(create, wait) })
        .await
        .context("not all became ready")??;
    Ok(started.elapsed())
}

async fn until_all_ready(api: &Api<DynamicObject>, wanted: usize) -> Result<()> {
    let mut ready = BTreeSet::new();
    let mut objects = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).applied_objects());
    while ready.len() < wanted {
        let Some(object) = objects.next().await else {
            bail!("the watch ended")
        };
        let object = object?;
        if object::condition(&object, "Ready").is_some_and(|condition| condition.status == "True") {
            ready.insert(object.name_any());
        }
    }
    Ok(())
}

fn api_requests(cluster: &ControlPlane) -> Result<BTreeMap<String, usize>> {
    let mut requests = BTreeMap::new();
    for entry in cluster.audit(|_| true)? {
        let refused = if entry.code >= 400 {
            format!(" ({})", entry.code)
        } else {
            String::new()
        };
        *requests
            .entry(format!("{} {}{refused}", entry.verb, entry.resource))
            .or_default() += 1;
    }
    Ok(requests)
}
