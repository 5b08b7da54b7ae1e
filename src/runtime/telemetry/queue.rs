//! A log writer that never blocks.
//!
//! The reader of the log may stop reading: a full disk under the container runtime, a stopped `kubectl logs`. Writing
//! to the pipe then blocks, and with it every thread that logs, until the whole operator hangs while holding its Lease.
//! Here lines go through a queue bounded in bytes to one thread that may block. What does not fit is dropped and
//! counted, and the count is logged as soon as the reader is back.
//!
//! This is not the usual crate because that bounds lines instead of bytes (a line may be long), logs nothing about what
//! it dropped, and brings a calendar and a channel along for file rotation.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait: some thousand lines.
pub(super) const MAX_QUEUED_BYTES: usize = 1024 * 1024;
/// What a line costs beside its text, so that very many very short lines are bounded too.
const LINE_OVERHEAD: usize = 64;
/// How long the end of the program waits for a reader.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Reply when everything queued before this is written.
    Flush(SyncSender<()>),
}

/// The side that logs.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    lines: Sender<Message>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
}

#[cfg(test)]
impl Queue {
    /// Lines dropped and not yet reported.
    pub(super) fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }
}

/// Waits for queued lines when it is dropped, for a second at most.
#[derive(Debug)]
#[must_use = "queued lines are lost when the program ends before this is dropped"]
pub struct Flush(Sender<Message>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        if self.0.send(Message::Flush(done)).is_ok() {
            let _: Result<(), RecvTimeoutError> = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Starts the thread that writes to `sink`.
pub(super) fn start(sink: impl Write + Send + 'static) -> io::Result<(Queue, Flush)> {
    let (sender, receiver) = channel();
    let queue = Queue {
        lines: sender.clone(),
        state: Arc::default(),
    };
    let state = Arc::clone(&queue.state);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&receiver, &state, sink))?;
    Ok((queue, Flush(sender)))
}

fn write_lines(messages: &Receiver<Message>, state: &State, mut sink: impl Write) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Line(line) => {
                // If standard error is closed, there is nowhere to report it.
                let _closed = sink.write_all(&line);
                state.queued_bytes.fetch_sub(cost(&line), Ordering::Relaxed);
                let lines = state.dropped.swap(0, Ordering::Relaxed);
                if lines > 0 {
                    tracing::warn!(
                        lines,
                        "log lines were dropped, because standard error was not read fast enough"
                    );
                }
            }
            Message::Flush(done) => {
                let _closed = sink.flush();
                let _gone = done.try_send(());
            }
        }
    }
}

fn cost(line: &[u8]) -> usize {
    line.len() + LINE_OVERHEAD
}

/// The formatter hands over each event in one piece.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let cost = cost(line);
        let queued = self.state.queued_bytes.fetch_add(cost, Ordering::Relaxed);
        let fits = queued.saturating_add(cost) <= MAX_QUEUED_BYTES;
        if !fits || self.lines.send(Message::Line(line.to_vec())).is_err() {
            self.state.queued_bytes.fetch_sub(cost, Ordering::Relaxed);
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
