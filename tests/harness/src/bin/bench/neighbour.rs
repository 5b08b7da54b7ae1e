//! `neighbour`: how long a namespace waits for its policies beside one whose registries are dead and slow.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kube::Client;
use kube::api::PostParams;
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::image::{Bundle, PolicyImage};
use policy_operator_harness::object;
use policy_operator_harness::operator::{Operator, OperatorOptions};
use policy_operator_harness::registry::{InProcess, InProcessOptions};
use tokio::net::TcpListener;

use crate::measure::Plan;

/// Objects on each of the two bad registries.
const BAD: usize = 500;
/// Objects whose wait is measured, and how many of them are under way at once.
const MEASURED: usize = 200;
const CLIENTS: usize = 4;
/// How long the slow registry takes for each answer.
const SLOW: Duration = Duration::from_secs(3);
/// When to give up on one object.
const LIMIT: Duration = Duration::from_mins(5);
/// The wait beside the bad ones against the wait without them.
const MOST_GROWTH: f64 = 2.0;

pub(crate) async fn run(plan: &Plan) -> Result<()> {
    let good = InProcess::start(InProcessOptions::default()).await?;
    let slow = InProcessOptions {
        latency: SLOW,
        ..InProcessOptions::default()
    };
    let (slow, dead) = (InProcess::start(slow).await?, dead().await?);
    let cluster = ControlPlane::start().await?;
    let (bad, measured) = (cluster.namespace("bad").await?, cluster.namespace("measured").await?);
    let mut operator = Operator::start(&OperatorOptions {
        binary: plan.operator.clone(),
        kubeconfig: cluster.operator_kubeconfig().await?,
        ..OperatorOptions::default()
    })?;
    operator.ready().await?;
    let client = cluster.client().await?;

    // The first objects wait for a control plane that has just started, which would excuse anything later.
    drop(waits(&client, &measured, &good, "first").await?);
    let alone = waits(&client, &measured, &good, "alone").await?;
    let images = (0..BAD).flat_map(|number| [&dead, slow.host()].map(|host| format!("{host}/acme/policy-{number}:1")));
    let create = images.enumerate().map(|(number, image)| {
        let (client, bad) = (client.clone(), bad.clone());
        async move { create(&client, &bad, &format!("bad-{number}"), &image).await }
    });
    stream::iter(create).buffer_unordered(16).try_collect::<()>().await?;
    let beside = waits(&client, &measured, &good, "beside").await?;

    let (alone, beside) = (Percentiles::of(alone), Percentiles::of(beside));
    println!("  without them: {alone}\n  beside them:  {beside}\n");
    operator.process().stop().await?;
    cluster.stop().await?;
    let growth = beside.p99.as_secs_f64() / alone.p99.as_secs_f64();
    ensure!(
        growth <= MOST_GROWTH,
        "the wait is {growth:.1} times as long beside the bad registries"
    );
    Ok(())
}

/// A registry that accepts connections and never answers.
async fn dead() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let host = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    Ok(host)
}

async fn create(client: &Client, namespace: &str, name: &str, image: &str) -> Result<()> {
    let api = object::api(client.clone(), namespace);
    let object = object::policy_image(namespace, name, image, None)?;
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// From the creation of each object, with an image of its own, to its readiness.
async fn waits(client: &Client, namespace: &str, registry: &InProcess, kind: &str) -> Result<Vec<Duration>> {
    let waits = (0..MEASURED).map(|number| async move {
        let name = format!("{kind}-{number}");
        let image = PolicyImage::new(Bundle::answering(&name)?);
        let image = image.push(registry.endpoint(), "acme/policy", &name).await?.reference;
        let started = Instant::now();
        create(client, namespace, &name, &image).await?;
        let api = object::api(client.clone(), namespace);
        let ready = |condition: &object::Condition| condition.status == "True";
        object::until(&api, &name, "Ready", ready, LIMIT).await?;
        anyhow::Ok(started.elapsed())
    });
    stream::iter(waits).buffer_unordered(CLIENTS).try_collect().await
}

struct Percentiles {
    p50: Duration,
    p99: Duration,
    longest: Duration,
}

impl Percentiles {
    fn of(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        let at = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or_default();
        Self {
            p50: at(50),
            p99: at(99),
            longest: waits.last().copied().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p99, longest } = self;
        write!(formatter, "median {p50:.0?}, p99 {p99:.0?}, longest {longest:.0?}")
    }
}
