use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rstest::rstest;

use super::*;

const SUPPRESSED: [&str; 2] = ["client::http", "watcher::stream"];

/// A sink that remembers, and that writes only after `open` was sent or dropped.
#[derive(Clone)]
struct Sink {
    written: Arc<Mutex<Vec<u8>>>,
    gate: Arc<Mutex<Option<Receiver<()>>>>,
}

impl Sink {
    fn blocked() -> (Self, SyncSender<()>) {
        let (open, gate) = sync_channel(0);
        (
            Self {
                written: Arc::default(),
                gate: Arc::new(Mutex::new(Some(gate))),
            },
            open,
        )
    }

    fn text(&self) -> String {
        String::from_utf8(self.written.lock().expect("lock").clone()).expect("text")
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = self.gate.lock().map_err(|_| io::Error::other("poisoned"))?.take() {
            let _ = gate.recv_timeout(Duration::from_secs(30));
        }
        self.written
            .lock()
            .map_err(|_| io::Error::other("poisoned"))?
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
    let (sink, open) = Sink::blocked();
    drop(open);
    let (queue, flush) = queue::start(sink.clone()).expect("thread");
    tracing::dispatcher::with_default(
        &dispatch(format, parse(filter).expect("filter"), &SUPPRESSED, queue),
        log,
    );
    drop(flush);
    sink.text()
}

#[test]
fn json_lines_are_flat() {
    let text = logged(LogFormat::Json, "info", || {
        let span = tracing::info_span!("reconcile", object = "authz/peoplefinder");
        let _entered = span.enter();
        tracing::info!(digest = "sha256:abc", "delivered");
        tracing::debug!("not asked for");
    });
    let line: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
    assert_eq!(line["message"], "delivered");
    assert_eq!(line["digest"], "sha256:abc");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["span"]["object"], "authz/peoplefinder");
    assert!(line["timestamp"].is_string());
}

#[test]
fn text_lines_hold_no_escapes() {
    let text = logged(LogFormat::Text, "warn", || {
        tracing::warn!(host = "reg.example", "slow \u{1b}[31m");
    });
    assert!(text.contains("WARN") && text.contains("host=\"reg.example\""), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[rstest]
#[case::trace("trace")]
#[case::the_client("info,client=trace")]
#[case::by_name("info,client::http=trace,watcher::stream=trace")]
#[case::by_span("info,client::http[HTTP]=trace")]
fn what_is_suppressed_is_in_no_line_whatever_the_filter(#[case] filter: &str) {
    let text = logged(LogFormat::Text, filter, || {
        let span = tracing::error_span!(target: "client::http", "HTTP");
        let _entered = span.enter();
        tracing::warn!(target: "client::http", "{{\"data\":\"canary\"}}, expected a string");
        tracing::debug!(target: "watcher::stream", "invalid type: string \"canary\"");
        tracing::error!(target: "client::config", "the rest of the crate is heard");
    });
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("the rest of the crate is heard"), "{text}");
}

#[test]
fn a_panic_is_a_line_of_the_log() {
    let text = logged(LogFormat::Json, "error", || {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        let caught = std::panic::catch_unwind(|| panic!("on {}", "purpose"));
        std::panic::set_hook(usual);
        caught.expect_err("panicked");
    });
    let line: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
    assert_eq!(
        (&line["level"], &line["cause"]),
        (&"ERROR".into(), &"on purpose".into())
    );
    assert!(
        line["location"]
            .as_str()
            .expect("location")
            .contains("telemetry/tests.rs")
    );
}

#[test]
fn a_reader_that_stops_does_not_stop_the_program() {
    let (sink, open) = Sink::blocked();
    let (queue, flush) = queue::start(sink.clone()).expect("thread");
    let dispatch = dispatch(LogFormat::Json, parse("info").expect("filter"), &SUPPRESSED, queue);
    let started = Instant::now();
    tracing::dispatcher::with_default(&dispatch, || {
        for number in 0..20_000 {
            tracing::info!(number, "a line that nobody reads");
        }
    });
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    drop(open);
    drop(flush);
    let text = sink.text();
    assert!(text.len() <= queue::MAX_QUEUED_BYTES, "{} bytes", text.len());
    assert!(text.starts_with('{') && text.ends_with("}\n"), "whole lines only");
    assert!(
        text.contains("\"number\":0,") || text.contains("\"number\":0}"),
        "the first lines are kept"
    );
    assert!(!text.contains("\"number\":19999"), "the last were dropped");
}

#[test]
fn what_was_dropped_is_told_once_the_reader_is_back() {
    let (sink, open) = Sink::blocked();
    let (mut queue, flush) = queue::start(sink.clone()).expect("thread");
    let line = vec![b'x'; queue::MAX_QUEUED_BYTES / 2 + 1];
    for _ in 0..3 {
        queue.write_all(&line).expect("never fails");
    }
    assert_eq!(queue.dropped(), 2);
    drop(open);
    drop(flush);
    assert_eq!(queue.dropped(), 0, "told and forgotten");
    assert_eq!(sink.text().len(), line.len());
}

#[test]
fn the_end_of_the_program_does_not_wait_for_a_dead_reader() {
    let (sink, _open) = Sink::blocked();
    let (mut queue, flush) = queue::start(sink).expect("thread");
    queue.write_all(b"last words\n").expect("never fails");
    let started = Instant::now();
    drop(flush);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[rstest]
#[case("info")]
#[case("INFO")]
#[case("warn,policy_operator=debug,kube=off")]
#[case("info,policy_operator[reconcile{object=x}]=trace")]
fn filters_are_levels_and_targets(#[case] filter: &str) {
    parse(filter).expect("filter");
}

#[rstest]
#[case::misspelt("inof", "'--log-level', is not understood: 'inof' is not a level")]
#[case::misspelt_target_level(
    "info,kube=debg",
    "'info,kube=debg', the value of '--log-level', is not understood: "
)]
#[case::target_alone("info,kube", "'kube' is not a level")]
#[case::empty("", "'' is not a level")]
#[case::trailing_comma("info,", "'' is not a level")]
fn a_wrong_filter_is_an_error_that_says_so(#[case] filter: &str, #[case] expected: &str) {
    let error = parse(filter).expect_err("refused").to_string();
    assert!(error.contains(expected), "{error}");
}
