//! Runs programs so that none outlives this process.
//!
//! A test run may be killed at any moment, and then no destructor runs. So a program is started by a small shell script
//! that holds one end of a pipe: when this process ends, for whatever reason, the kernel closes the other end, and the
//! script ends the program.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::time::sleep;

/// Starts `$@` with its output in the file `$1` and at most `$2` KiB of memory (empty: any), prints its process id, and ends
/// with its exit code. The end of standard input ends the program: politely, and after five seconds by force.
const GUARD: &str = r#"
exec 3<&0 2>/dev/null
log=$1; memory=$2; shift 2
[ -z "$memory" ] || ulimit -d "$memory"
"$@" </dev/null >"$log" 2>&1 3<&- &
program=$!
echo "$program"
exec >&-
(
  read -r _ <&3
  kill "$program"
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
    kill -0 "$program" || exit
    sleep 0.2
  done
  kill -9 "$program"
) &
guard=$!
wait "$program"; code=$?
kill "$guard"
exit "$code"
"#;

/// How long a program may take to end after it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// A program to run: what to start, not yet started.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    memory_kib: Option<u32>,
}

impl Program {
    /// The program at `path`, without arguments.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            memory_kib: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable; all others are inherited.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Lets the program have at most this much memory of its own (`RLIMIT_DATA`: heap and stacks, touched or not) when it is
    /// started in the background. Asking for more fails, which ends most programs.
    #[must_use]
    pub fn memory_kib(mut self, limit: Option<u32>) -> Self {
        self.memory_kib = limit;
        self
    }

    /// Runs the program to its end, for `limit` at most, and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started, takes longer than `limit`, or fails: then with what it wrote to standard error.
    pub async fn output(&self, limit: Duration) -> Result<Vec<u8>> {
        let mut command = tokio::process::Command::from(self.command(&self.path));
        command.args(&self.arguments).stdin(Stdio::null()).kill_on_drop(true);
        let run = tokio::time::timeout(limit, command.output());
        let output = run
            .await
            .with_context(|| format!("{}: not done in {limit:?}", self.name()))??;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!(
                "{} {}: {}: {message}",
                self.name(),
                self.first_argument(),
                output.status
            );
        }
        Ok(output.stdout)
    }

    /// Starts the program in the background; `log` gets its standard output and standard error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, log: impl Into<PathBuf>) -> Result<Process> {
        let log = log.into();
        let mut command = self.command(Path::new("sh"));
        command
            .args(["-c", GUARD, "guard"])
            .arg(&log)
            .arg(self.memory_kib.map(|limit| limit.to_string()).unwrap_or_default())
            .arg(&self.path)
            .args(&self.arguments);
        // A group of its own: Ctrl-C in a terminal reaches this process alone, which then ends the others in order.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = command.spawn().with_context(|| format!("start {}", self.name()))?;
        let lifeline = guard.stdin.take();
        let mut first_line = String::new();
        BufReader::new(guard.stdout.take().context("no output")?).read_line(&mut first_line)?;
        let id = first_line
            .trim()
            .parse()
            .with_context(|| format!("start {}: no process id", self.name()))?;
        Ok(Process {
            name: self.name(),
            log,
            id,
            lifeline,
            guard: Some(guard),
            status: None,
        })
    }

    fn command(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn first_argument(&self) -> String {
        self.arguments
            .first()
            .map(|argument| argument.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// A running program; dropping it ends the program.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    id: i32,
    /// Closing it ends the program. Nothing is ever written to it.
    lifeline: Option<ChildStdin>,
    guard: Option<Child>,
    status: Option<ExitStatus>,
}

impl Process {
    /// The process id of the program itself.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The file with everything it wrote.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            bail!("{} has ended", self.name);
        }
        let id = Pid::from_raw(self.id).context("process id")?;
        kill_process(id, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Its exit status if it has ended; an end by signal N is exit code 128 + N.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if let (None, Some(guard)) = (self.status, &mut self.guard) {
            self.status = guard.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits until the program has ended by itself, for `limit` at most.
    ///
    /// # Errors
    /// When it runs longer than `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} still runs after {limit:?}", self.name);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks the program to end (SIGTERM), waits, and forces it if it does not.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.signal(Signal::TERM)?;
        }
        match self.wait(STOP_LIMIT).await {
            Ok(status) => Ok(status),
            Err(_) => self.kill().await,
        }
    }

    /// Ends the program as the kernel does when memory runs out: SIGKILL, no farewell.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            self.signal(Signal::KILL)?;
        }
        self.wait(STOP_LIMIT).await
    }

    /// Waits for `ready` like [`crate::wait::until`], but fails at once, with the end of the log, when the program ends.
    ///
    /// # Errors
    /// When the program ends or `limit` passes.
    pub async fn until_ready<F, Attempt>(&mut self, limit: Duration, mut ready: Attempt) -> Result<()>
    where
        F: Future<Output = Result<bool>>,
        Attempt: FnMut() -> F,
    {
        let end = Instant::now() + limit;
        while !ready().await.unwrap_or(false) {
            let ended = self.ended()?;
            if ended.is_some() || Instant::now() >= end {
                bail!(
                    "{} is not ready ({ended:?}); its log ends with:\n{}",
                    self.name,
                    self.log_end()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        if let Some(mut guard) = self.guard.take() {
            // Nobody waits for this thread: it only lets the kernel forget the ended child.
            std::thread::spawn(move || guard.wait());
        }
    }
}

/// Waits until this process is asked to end: by Ctrl-C or SIGTERM.
///
/// # Errors
/// When the kernel does not tell.
pub async fn until_asked_to_end() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests;
