//! Runs the operator's own binary.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ports;
use crate::process::{Process, Program};
use crate::run_directory::RunDirectory;

/// How to run the operator.
#[derive(Debug, Clone, Default)]
pub struct OperatorOptions {
    /// The program: in tests `env!("CARGO_BIN_EXE_policy-operator")`.
    pub binary: PathBuf,
    /// The kubeconfig, usually of [`crate::cluster::ControlPlane::operator_kubeconfig`].
    pub kubeconfig: PathBuf,
    /// The namespaces to watch; none means all.
    pub namespaces: Vec<String>,
    /// More arguments after `run`.
    pub arguments: Vec<String>,
    /// Leave out `--allow-loopback`, so that every registry of the tests is out of reach.
    pub refuse_loopback: bool,
    /// More environment variables.
    pub environment: Vec<(String, OsString)>,
    /// The most memory that it may have; none means any.
    pub memory_kib: Option<u32>,
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    health: String,
    metrics: String,
    client: reqwest::Client,
    // Before the directory, so that it ends before its files go.
    process: Process,
    directory: RunDirectory,
}

impl Operator {
    /// Starts it, without waiting until it is ready. Registries on loopback are allowed unless the options say
    /// otherwise, leader election is off.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(options: &OperatorOptions) -> Result<Self> {
        crate::init();
        let directory = RunDirectory::new("operator")?;
        let health = format!("127.0.0.1:{}", ports::free()?);
        let metrics = format!("127.0.0.1:{}", ports::free()?);
        let mut program = Program::new(&options.binary)
            .args(["run", "--health-addr", &health, "--metrics-addr", &metrics])
            .arg("--kubeconfig")
            .arg(&options.kubeconfig)
            .arg("--cache-dir")
            .arg(directory.file("cache"));
        if !options.refuse_loopback {
            program = program.arg("--allow-loopback");
        }
        if !options.namespaces.is_empty() {
            program = program.arg("--watch-namespaces").arg(options.namespaces.join(","));
        }
        for (name, value) in &options.environment {
            program = program.env(name, value);
        }
        let process = program
            .args(&options.arguments)
            .memory_kib(options.memory_kib)
            .start(directory.file("policy-operator.log"))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self {
            health,
            metrics,
            client,
            process,
            directory,
        })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready within 30 seconds: with the end of its log.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("http://{}/readyz", self.health);
        let client = &self.client;
        let ready = || async { Ok(client.get(&url).send().await?.status().is_success()) };
        self.process.until_ready(Duration::from_secs(30), ready).await
    }

    /// The status and the text of `/readyz`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn readiness(&self) -> Result<(u16, String)> {
        let answer = self.client.get(format!("http://{}/readyz", self.health)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// The text of its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let url = format!("http://{}/metrics", self.metrics);
        Ok(self.client.get(url).send().await?.error_for_status()?.text().await?)
    }

    /// What it logged so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }

    /// The process: to signal, stop or kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its files.
    #[must_use]
    pub fn directory(&self) -> &RunDirectory {
        &self.directory
    }

    /// The most memory that it ever held, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn peak_rss(&self) -> Result<u64> {
        peak_rss(self.process.id())
    }

    /// The processor time that it used so far, user and system.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> Result<Duration> {
        cpu(self.process.id())
    }
}

/// The most memory that a process ever held, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn peak_rss(process: i32) -> Result<u64> {
    memory(process, "VmHWM:")
}

fn memory(process: i32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("no {field} the process has ended"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}

/// The memory that a process holds now, in bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident_bytes(process: i32) -> Result<u64> {
    memory(process, "VmRSS:")
}

/// The processor time that a process used so far, user and system.
///
/// # Errors
/// When there is no such process.
pub fn cpu(process: i32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything; after it come fields 3, 4, … of proc(5), and 14 and 15 are wanted.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    // USER_HZ is 100 on every architecture that Rust supports.
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}
