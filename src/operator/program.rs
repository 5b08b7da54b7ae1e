//! The program: from the command line to an exit status.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use super::api::crd;
use super::args::{Arguments, Command, PROGRAM, RenderArguments};
use super::render::manifests::KubernetesManifests;
use super::render::render;
use super::run;
use super::steps::validate::OperatorOptions;
use crate::adapters::registry::observer::Unobserved;
use crate::domain::bundle::Limits;
use crate::pipeline::Pipeline;
use crate::pipeline::reason::chain;
use crate::pipeline::single_flight::CacheObserver;
use crate::runtime::args::LogArguments;
use crate::runtime::setup;
use crate::runtime::telemetry::{self, Flush};

/// Exit status if files or flags are wrong; clap uses the same.
const USAGE: u8 = 2;

/// Modules of dependencies that log what they receive: the client of the API server writes the body of a response that
/// it cannot decode, which may be a Secret, at level WARN, and the watcher above it writes the decoder's complaint,
/// which quotes the body. Their callers log what went wrong.
const SUPPRESSED: [&str; 2] = ["kube_client::client", "kube_runtime::watcher"];

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::read();
    // There is one provider of cryptography in the whole tree; an error here means that it is already installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ended = match arguments.command {
        Command::Crd => print_crd(),
        Command::Run(arguments) => with_log(&arguments.log).and_then(|_flush| {
            block_on(async {
                run::run(*arguments)
                    .await
                    .map(|()| ExitCode::SUCCESS)
                    .map_err(Failure::from)
            })
        }),
        Command::Render(arguments) => with_log(&arguments.log).and_then(|_flush| block_on(print_rendered(&arguments))),
    };
    ended.unwrap_or_else(|error| {
        // Standard error is the last place to say it; if that is gone too, the exit status remains.
        let _ = writeln!(std::io::stderr(), "policy-operator: {}", chain(&*error));
        ExitCode::from(USAGE)
    })
}

fn with_log(arguments: &LogArguments) -> Result<Flush, Failure> {
    Ok(telemetry::start(
        arguments.log_format,
        &arguments.log_level,
        &SUPPRESSED,
    )?)
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    // A thread that still reads a bundle must not delay the end of the program.
    runtime.shutdown_background();
    ended
}

fn print_crd() -> Result<ExitCode, Failure> {
    std::io::stdout().write_all(crd::yaml()?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn print_rendered(arguments: &RenderArguments) -> Result<ExitCode, Failure> {
    let manifests = KubernetesManifests::read(&arguments.files, &arguments.namespace)?;
    let adapters = setup::adapters(PROGRAM, &arguments.registry, &[], Arc::new(Unobserved))?;
    let pipeline = Pipeline::new(adapters, Limits::default(), &(Arc::new(()) as Arc<dyn CacheObserver>));
    let options = OperatorOptions {
        require_verification: arguments.require_verification,
        ..OperatorOptions::default()
    };
    let (mut output, mut problems) = (std::io::stdout(), std::io::stderr());
    let verdict = render(
        &manifests,
        &pipeline,
        options,
        arguments.status,
        &mut output,
        &mut problems,
    )
    .await?;
    Ok(ExitCode::from(verdict.exit_status()))
}
