//! Signals to stop.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether the process was signalled to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Listens for SIGTERM and SIGINT. The second of them ends the process at once.
    ///
    /// # Errors
    /// Whatever the operating system says if signals cannot be received.
    pub fn on_signal() -> Result<Self, io::Error> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            sender.send_replace(true);
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("second signal: ending at once");
            // A user who signals twice does not want to wait for the work under way.
            std::process::exit(130);
        });
        Ok(Self(receiver))
    }

    /// Whether a signal was received already.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when a signal is received.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut receiver = self.0.clone();
        async move {
            // An error means that the sender is gone, and with it the runtime.
            let _ = receiver.wait_for(|stop| *stop).await;
        }
    }
}
