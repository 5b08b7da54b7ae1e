//! A registry that misbehaves on request: the first part of the repository's name says how.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// It answers requests for `silent/…` never, `denied/…` with 403, `limited/…` with 429, `locked/…` with 401, `noisy/…`
/// with a text that nobody should repeat, and all others with 503.
pub(super) struct Responder {
    host: String,
    requests: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Responder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let host = listener.local_addr().expect("address").to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&requests));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { host, requests, server }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// An image that is answered in the way of `kind`.
    pub(super) fn image(&self, kind: &str) -> String {
        format!("{}/{kind}/policy:1.0.0", self.host)
    }

    /// The requests so far.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(requests): State<Arc<AtomicUsize>>, request: Request) -> Response {
    requests.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path();
    match path
        .strip_prefix("/v2/")
        .and_then(|path| path.split('/').next())
        .unwrap_or_default()
    {
        "silent" => std::future::pending().await,
        "denied" => StatusCode::FORBIDDEN.into_response(),
        "locked" => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic realm=\"test\"")]).into_response(),
        "limited" => (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "120")]).into_response(),
        // Repeats what it was sent, as error pages do.
        "noisy" => (StatusCode::BAD_REQUEST, format!("{:?}", request.headers())).into_response(),
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
