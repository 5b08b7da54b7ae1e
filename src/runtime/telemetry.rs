//! The log: what is written, in which format, and what happens when it is not read.

use std::fmt;
use std::io;
use std::panic::PanicHookInfo;

use clap::ValueEnum;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

pub use self::queue::Flush;

mod queue;
#[cfg(test)]
mod tests;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line; fields of the event are keys of the object.
    Json,
    /// For people.
    Text,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `--log-level` is no filter.
    #[error(
        "'{filter}', the value of '--log-level', is not understood: {cause}; write a level (error, warn, info, debug, trace) or 'level,target=level'"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The thread that writes could not be started.
    #[error("the thread that writes the log could not be started")]
    Thread(#[source] io::Error),
    /// Logging was already started.
    #[error("logging was started twice")]
    StartedTwice,
}

/// Starts logging to standard error. Call it once, in the program. Keep the result until the program ends: dropping it
/// waits up to a second for the lines that are still queued. Panics are logged too, from then on.
///
/// `filter` is what [`EnvFilter`] understands: `info`, or `info,policy_operator=debug`. Targets in `suppressed` are never
/// logged, whatever `filter` says: modules of dependencies that log what must stay secret.
///
/// # Errors
/// [`TelemetryError`] if the filter is wrong, or if logging is already started.
pub fn start(format: LogFormat, filter: &str, suppressed: &'static [&'static str]) -> Result<Flush, TelemetryError> {
    let filter = parse(filter)?;
    let (queue, flush) = queue::start(io::stderr()).map_err(TelemetryError::Thread)?;
    let dispatch = dispatch(format, filter, suppressed, queue);
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| TelemetryError::StartedTwice)?;
    // The default hook writes to standard error directly, where it would block on the reader.
    std::panic::set_hook(Box::new(log_panic));
    Ok(flush)
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    tracing::error!(
        location,
        cause = panic.payload_as_str(),
        "a task panicked; this is a bug"
    );
}

fn dispatch<W>(
    format: LogFormat,
    filter: EnvFilter,
    suppressed: &'static [&'static str],
    writer: W,
) -> tracing::Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Colours would fill the log with escapes wherever standard error is not a terminal, which is where operators run.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false);
    match format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_span_list(false);
            builder.finish().with(without(suppressed)).into()
        }
        LogFormat::Text => builder.finish().with(without(suppressed)).into(),
    }
}

/// Beside the filter that users give and not part of it, so that no `--log-level` brings back what is suppressed.
fn without(suppressed: &'static [&'static str]) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(move |metadata| !suppressed.contains(&metadata.target()))
}

/// Parses strictly. [`EnvFilter`] takes a bare word that is no level for the name of a target: `--log-level inof` would
/// silence everything without an error.
fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |cause: String| TelemetryError::Filter {
        filter: filter.to_owned(),
        cause,
    };
    let bare_words = filter
        .split(',')
        .map(str::trim)
        .filter(|part| !part.contains(['=', '[', ']', '{', '}']));
    for word in bare_words {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(wrong(format!("'{word}' is not a level")));
        }
    }
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| wrong(error.to_string()))
}
