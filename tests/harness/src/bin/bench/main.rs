//! Measures the operator against a local control plane and a registry that counts, and against a floor: a bare
//! controller that makes one server-side apply and one status patch for each object, on the same machine.
//!
//! `BENCH_OBJECTS` (1000), `BENCH_IDLE` (60, seconds), `BENCH_SCENARIOS` (comma-separated names) and `BENCH_OPERATOR`
//! (the release build) say what is measured. The operator runs with its default flags.
//!
//! Two scenarios take long and run only if they are named; they fail if their limits are not kept: `scale`, with
//! `BENCH_SIZES` (1000,5000,10000) objects, and `neighbour`.
#![expect(clippy::disallowed_methods, reason = "test equipment reads and writes its own files")]
#![expect(clippy::print_stdout, reason = "a program for people")]

mod floor;
mod measure;
mod neighbour;
mod scale;
mod scenario;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use policy_operator_harness::tools::repository_root;

use measure::{Measurement, Plan, measure};
use scenario::Scenario;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["floor", kubeconfig] => floor::run(kubeconfig.as_ref()).await,
        [] => bench().await,
        _ => bail!("usage: bench"),
    }
}

async fn bench() -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository_root().join("target"), PathBuf::from);
    let operator =
        std::env::var_os("BENCH_OPERATOR").map_or_else(|| target.join("release/policy-operator"), Into::into);
    let plan = Plan {
        operator,
        objects: number("BENCH_OBJECTS", 1000)?,
        idle: Duration::from_secs(number("BENCH_IDLE", 60)?.try_into()?),
    };
    let wanted = std::env::var("BENCH_SCENARIOS").unwrap_or_default();
    let mut floor: Option<Measurement> = None;
    for scenario in Scenario::ALL {
        if !wanted.is_empty() && !wanted.split(',').any(|name| name == scenario.name()) {
            continue;
        }
        println!("{} ...", scenario.name());
        let measurement = measure(scenario, &plan).await.with_context(|| scenario.name())?;
        report(&measurement, &plan, floor.as_ref());
        if scenario == Scenario::Floor {
            floor = Some(measurement);
        }
    }
    if wanted.split(',').any(|name| name == "scale") {
        println!("scale ...");
        scale::run(&plan, &sizes()?).await?;
    }
    if wanted.split(',').any(|name| name == "neighbour") {
        println!("neighbour ...");
        neighbour::run(&plan).await?;
    }
    Ok(())
}

fn sizes() -> Result<Vec<usize>> {
    let text = std::env::var("BENCH_SIZES").unwrap_or_else(|_| "1000,5000,10000".to_owned());
    let sizes = text.split(',').map(|size| size.trim().parse());
    sizes
        .collect::<Result<_, _>>()
        .with_context(|| format!("BENCH_SIZES={text:?} is no list of numbers"))
}

fn number(variable: &str, default: usize) -> Result<usize> {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{variable}={text:?} is not a number")),
        Err(_) => Ok(default),
    }
}

fn report(measurement: &Measurement, plan: &Plan, floor: Option<&Measurement>) {
    let Measurement {
        objects,
        wall,
        peak_rss,
        cpu,
        registry,
        api,
        idle_writes,
        idle_cpu,
    } = measurement;
    let mebibytes = tenths(*peak_rss, 1 << 20);
    println!(
        "  {objects} objects ready in {:.2} s, {mebibytes} MiB peak, {:.2} s CPU",
        wall.as_secs_f64(),
        cpu.as_secs_f64()
    );
    if let Some(floor) = floor {
        let time = wall.as_secs_f64() / floor.wall.as_secs_f64();
        println!(
            "  against the floor: {time:.2} times as long, {} times the memory",
            tenths(*peak_rss, floor.peak_rss)
        );
    }
    let total: u64 = registry.values().sum();
    println!("  registry requests: {total}");
    for (kind, count) in registry {
        println!("    {count:6} {kind}");
    }
    println!("  API requests:");
    for (kind, count) in api {
        println!("    {count:6} {kind}");
    }
    println!(
        "  idle for {} s: {idle_writes} writes, {:.2} s CPU\n",
        plan.idle.as_secs(),
        idle_cpu.as_secs_f64()
    );
}

/// `dividend / divisor` with one digit after the point, rounded down.
fn tenths(dividend: u64, divisor: u64) -> String {
    let tenths = dividend * 10 / divisor.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}
