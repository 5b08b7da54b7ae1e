//! What the kubelet and Prometheus ask for: `/healthz`, `/readyz` and `/metrics`.

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
#[derive(Debug, Clone)]
pub struct Readiness(watch::Sender<Option<&'static str>>);

impl Readiness {
    /// Not ready, and why. The reason is a few words for people: "the caches are not filled yet".
    #[must_use]
    pub fn waiting_for(reason: &'static str) -> Self {
        Self(watch::Sender::new(Some(reason)))
    }

    /// From now on ready.
    pub fn ready(&self) {
        self.0.send_replace(None);
    }
}

/// The routes of `--health-addr`.
///
/// `/healthz` answers 200 as long as the process' runtime answers, and looks at nothing else: a restart repairs neither
/// an unreachable API server nor a slow registry, and would only make every replica start anew at the worst moment.
/// `/readyz` answers 200, or 503 with the reason.
pub fn health(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    match *readiness.0.borrow() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
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
