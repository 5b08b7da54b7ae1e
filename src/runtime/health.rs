//! The endpoints of the kubelet and Prometheus: `/healthz`, `/readyz` and `/metrics`.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use tokio::sync::watch;

/// Whether this replica is ready, written by the program and read by `/readyz`.
///
/// A replica that waits for leadership *is* ready: otherwise a rolling update would wait for the new replica, and the
/// new replica for the old one's Lease.
#[derive(Clone)]
pub struct Readiness {
    waiting: watch::Sender<Option<&'static str>>,
    checks: Vec<Check>,
}

/// Returns why the program is not ready, at the moment of a probe.
type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl Readiness {
    /// Not ready, and why. The reason is a few words for humans: "the caches are not filled yet".
    #[must_use]
    pub fn waiting_for(reason: &'static str) -> Self {
        Self {
            waiting: watch::Sender::new(Some(reason)),
            checks: Vec::new(),
        }
    }

    /// Also not ready while `check` returns a reason. It is called at every probe, so it must be quick.
    #[must_use]
    pub fn unless(mut self, check: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.checks.push(Arc::new(check));
        self
    }

    /// Marks the program as ready.
    pub fn ready(&self) {
        self.waiting.send_replace(None);
    }

    /// Every reason that there is now.
    fn reasons(&self) -> Vec<String> {
        let waiting = self.waiting.borrow().map(str::to_owned);
        waiting
            .into_iter()
            .chain(self.checks.iter().filter_map(|check| check()))
            .collect()
    }
}

/// The routes of `--health-addr`.
///
/// `/healthz` answers 200 as long as the process' runtime answers, and looks at nothing else: a restart repairs neither
/// an unreachable API server nor a slow registry, and would only restart every replica at the worst moment.
/// `/readyz` answers 200, or 503 with the reasons, one on a line.
pub fn health(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

/// Writes all metrics of a program in the OpenMetrics text format.
pub type Encoder = Arc<dyn Fn() -> Result<String, fmt::Error> + Send + Sync>;

/// The route of `--metrics-addr`: what `encode` writes, at every scrape.
pub fn metrics(encode: Encoder) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(encode)
}

async fn scrape(State(encode): State<Encoder>) -> (StatusCode, [(HeaderName, &'static str); 1], String) {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match encode() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests;
