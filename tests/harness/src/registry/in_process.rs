use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ferro_blob_store::InMemoryBlobStore;
use ferro_oci_server::{AppState, InMemoryRegistryMeta, router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Credentials, Endpoint};

/// How many requests came in, by type. Reads are `ping`, `token`, `manifest head`, `manifest get`, `blob`, `tags` and
/// `referrers`; `push` is every other method, and `refused` those that were answered 401.
pub type Counts = BTreeMap<&'static str, u64>;

/// What an [`InProcess`] registry does beyond the protocol; nothing by default.
#[derive(Debug, Clone, Default)]
pub struct InProcessOptions {
    /// Wait so long before each answer, as a far registry does.
    pub latency: Duration,
    /// Accept only this user, by a bearer token that the user gets from `/token`. Pushes through
    /// [`InProcess::endpoint`] use HTTP basic authentication, which is accepted too.
    pub token_user: Option<Credentials>,
}

/// A registry inside this process, with the referrers API and counters.
#[derive(Debug)]
pub struct InProcess {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    options: InProcessOptions,
    host: String,
    counts: Mutex<Counts>,
}

/// What the token endpoint hands out. One is enough: tests look at who asks, not at what is in it.
const TOKEN: &str = "token-for-tests-only";

impl InProcess {
    /// Starts an empty one on the current runtime.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(options: InProcessOptions) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let host = listener.local_addr()?.to_string();
        let endpoint = Endpoint::plain(host.clone(), options.token_user.clone())?;
        let shared = Arc::new(Shared {
            options,
            host,
            counts: Mutex::default(),
        });
        let registry = router(AppState::new(
            Arc::new(InMemoryBlobStore::new()),
            Arc::new(InMemoryRegistryMeta::new()),
        ));
        let app = Router::new()
            .route("/token", get(token).with_state(shared.clone()))
            .merge(registry)
            .layer(from_fn_with_state(shared.clone(), observe));
        let server = tokio::spawn(async move {
            // Ends only with the runtime.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            endpoint,
            shared,
            server,
        })
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// How to talk to it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The requests since the last call, by type.
    #[must_use]
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn count(&self, kind: &'static str) {
        *self
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(kind)
            .or_default() += 1;
    }

    fn is_user(&self, headers: &HeaderMap) -> bool {
        let Some(Credentials { user, password }) = &self.options.token_user else {
            return true;
        };
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        headers.get(AUTHORIZATION).is_some_and(|value| *value == basic)
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        headers
            .get(AUTHORIZATION)
            .is_some_and(|value| *value == format!("Bearer {TOKEN}"))
            || self.is_user(headers)
    }
}

/// Counts a request, makes it wait, and refuses it without a token.
async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    shared.count(kind(request.method(), path));
    if !shared.options.latency.is_zero() {
        tokio::time::sleep(shared.options.latency).await;
    }
    if path.starts_with("/v2") && !shared.has_token(request.headers()) {
        shared.count("refused");
        return (
            StatusCode::UNAUTHORIZED,
            [(WWW_AUTHENTICATE, challenge(&shared.host, path))],
        )
            .into_response();
    }
    next.run(request).await
}

fn challenge(host: &str, path: &str) -> String {
    let realm = format!("Bearer realm=\"http://{host}/token\",service=\"{host}\"");
    match repository(path) {
        Some(repository) => format!("{realm},scope=\"repository:{repository}:pull\""),
        None => realm,
    }
}

fn repository(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/v2/")?;
    ["/manifests/", "/blobs/", "/tags/", "/referrers/"]
        .iter()
        .find_map(|part| Some(path.split_once(part)?.0))
}

fn kind(method: &Method, path: &str) -> &'static str {
    match method {
        &Method::GET if path == "/token" => "token",
        &Method::HEAD if path.contains("/manifests/") => "manifest head",
        &Method::GET if path.contains("/manifests/") => "manifest get",
        &Method::GET | &Method::HEAD if path.contains("/blobs/") => "blob",
        &Method::GET if path.contains("/tags/") => "tags",
        &Method::GET if path.contains("/referrers/") => "referrers",
        &Method::GET | &Method::HEAD => "ping",
        _ => "push",
    }
}

async fn token(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    // A scope beyond `pull` would be a client that asks for more than it needs.
    let modest = query.get("scope").is_none_or(|scope| scope.ends_with(":pull"));
    if modest && shared.is_user(&headers) {
        Json(json!({ "token": TOKEN, "expires_in": 300 })).into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}
