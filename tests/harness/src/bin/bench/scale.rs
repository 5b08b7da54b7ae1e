//! `scale`: what an object costs among a thousand, five thousand and ten thousand on one image.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::measure::{Measurement, Plan, measure};
use crate::scenario::Scenario;

/// Processor time per object at the largest size against that at the smallest.
const MOST_GROWTH: f64 = 1.25;
/// Part of one core that idling may take.
const MOST_IDLE: f64 = 0.02;

/// Measures each of `sizes`, from the smallest to the largest.
pub(crate) async fn run(plan: &Plan, sizes: &[usize]) -> Result<()> {
    let (mut costs, mut most_idle) = (Vec::new(), 0.0_f64);
    for objects in sizes {
        let plan = Plan {
            objects: *objects,
            ..plan.clone()
        };
        let measured = measure(Scenario::OneImage, &plan).await?;
        let idle = measured.idle_cpu.as_secs_f64() / plan.idle.max(Duration::from_secs(1)).as_secs_f64();
        let objects = f64::from(u32::try_from(measured.objects)?);
        let cost = measured.cpu.as_secs_f64() * 1e3 / objects;
        costs.push(cost);
        println!(
            "  {objects:6} objects ready in {:.1} s: {cost:.2} ms CPU and {:.1} KiB each; idle {:.2} % of a core, {} writes",
            measured.wall.as_secs_f64(),
            f64::from(u32::try_from(measured.peak_rss >> 10)?) / objects,
            idle * 100.0,
            measured.idle_writes,
        );
        check_writes(&measured)?;
        most_idle = most_idle.max(idle);
    }
    let growth = costs.last().copied().unwrap_or_default() / costs.first().copied().unwrap_or(1.0);
    println!("  an object of the largest costs {growth:.2} times as much as one of the smallest\n");
    ensure!(
        most_idle < MOST_IDLE,
        "idling takes {:.1} % of a core",
        most_idle * 100.0
    );
    ensure!(
        growth <= MOST_GROWTH,
        "the processor time per object grows with their number"
    );
    Ok(())
}

/// One ConfigMap, one status and at most one event for each object.
fn check_writes(measured: &Measurement) -> Result<()> {
    let written = |resource: &str| {
        let requests = measured.api.iter();
        let writes = requests.filter(|(request, _)| {
            let mut words = request.split(' ');
            !matches!(words.next(), Some("get" | "list" | "watch")) && words.next() == Some(resource)
        });
        writes.map(|(_, count)| count).sum::<usize>()
    };
    for resource in ["configmaps", "policyimages/status", "events"] {
        let (writes, objects) = (written(resource), measured.objects);
        ensure!(writes <= objects, "{writes} writes of {resource} for {objects} objects");
    }
    Ok(())
}
