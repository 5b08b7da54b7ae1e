//! The standard process metrics of Prometheus clients, from `/proc`.
//!
//! Names: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>. If `/proc` is missing or
//! unreadable, the metric is missing too.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// `USER_HZ`: the unit of times in `/proc` is fixed in the kernel's interface to user space, on every architecture that
/// Kubernetes runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc` at every scrape.
#[derive(Debug)]
pub struct ProcessMetrics;

impl Collector for ProcessMetrics {
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel writes these files, and they are small"
    )]
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let times = Times::read(&read("/proc/self/stat"), &read("/proc/stat"));
        if let Some(times) = times {
            let help = "Processor time in user and kernel mode.";
            counter(&mut encoder, "process_cpu", help, times.cpu)?;
            let help = "When the process started, since the Unix epoch.";
            gauge(
                &mut encoder,
                "process_start_time",
                help,
                Some(&Unit::Seconds),
                times.start,
            )?;
        }
        if let Some(bytes) = resident_bytes(&read("/proc/self/status")) {
            gauge(
                &mut encoder,
                "process_resident_memory",
                "Memory in use.",
                Some(&Unit::Bytes),
                bytes,
            )?;
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One is the directory's own.
            let open = u32::try_from(entries.count().saturating_sub(1)).unwrap_or(u32::MAX);
            gauge(
                &mut encoder,
                "process_open_fds",
                "Open file descriptors.",
                None,
                f64::from(open),
            )?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, seconds: f64) -> fmt::Result {
    let metric = ConstCounter::new(seconds);
    metric.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

/// Seconds: of processor time, and of the start since the Unix epoch.
#[derive(Debug, PartialEq)]
struct Times {
    cpu: f64,
    start: f64,
}

impl Times {
    /// `own` is `/proc/self/stat`, `system` is `/proc/stat`.
    fn read(own: &str, system: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may hold anything, parentheses and spaces too.
        let fields: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
        // proc_pid_stat(5) counts from 1, and the state after the name is field 3.
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let boot: f64 = system
            .lines()
            .find_map(|line| line.strip_prefix("btime "))?
            .trim()
            .parse()
            .ok()?;
        Some(Self {
            cpu: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            start: boot + ticks(22)? / TICKS_PER_SECOND,
        })
    }
}

/// `VmRSS` of `/proc/self/status`, which is in kibibytes whatever the page size.
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_although_the_name_is_hostile() {
        let own = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 12345 1 2";
        let times = Times::read(own, "cpu 1 2\nbtime 1700000000\nprocesses 5\n");
        assert_eq!(
            times,
            Some(Times {
                cpu: 2.0,
                start: 1_700_000_123.45
            })
        );
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n"),
            Some(1_263_616.0)
        );
    }

    #[test]
    fn what_cannot_be_read_is_missing() {
        assert_eq!(Times::read("7 (a) S", "btime 1"), None);
        assert_eq!(Times::read("", ""), None);
        assert_eq!(resident_bytes("VmRSS: lots"), None);
    }
}
