//! A reverse proxy before an API server, which answers as a test says: late, wrongly, twice, or not at all.
//!
//! Unlike [`faulty_proxy`](crate::faulty_proxy) it reads what passes, so it can fail the one write or lose the one event
//! that a test is about. The operator speaks plain HTTP to it, with its own token, and it speaks TLS to the API server.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::run_directory::RunDirectory;

/// The largest request that is forwarded, in bytes.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// A request of the operator.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    /// The HTTP method.
    pub method: Method,
    /// The path, such as `/api/v1/namespaces/acme/configmaps/app-bundle`.
    pub path: String,
    /// The query without its question mark, or empty.
    pub query: String,
    /// The body.
    pub body: Bytes,
    /// When it came.
    pub at: Instant,
}

impl ApiRequest {
    /// Whether it asks for events.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.query.split('&').any(|pair| pair == "watch=true")
    }

    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    /// Whether it is about objects of this plural, such as `configmaps`, or about one of them.
    #[must_use]
    pub fn concerns(&self, plural: &str) -> bool {
        self.path.split('/').any(|part| part == plural)
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// It is forwarded, and so is the answer.
    Pass,
    /// As [`Reply::Pass`], but the answer ends after this time, finished or not.
    PassFor(Duration),
    /// It is not forwarded; this is the answer.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// It is neither forwarded nor answered.
    Hold,
    /// It is forwarded, and the answer is kept back.
    ForwardAndHold,
}

impl Reply {
    /// A refusal of the API server, with a `Status` as it writes it.
    #[must_use]
    pub fn failure(code: u16, reason: &str) -> Self {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": "scripted",
        });
        Self::Answer(code, Vec::new(), status.to_string())
    }
}

/// What becomes of an event of a watch.
#[derive(Debug, Clone)]
pub enum EventReply {
    /// It is forwarded.
    Pass,
    /// It is lost.
    Drop,
    /// It comes twice.
    Double,
    /// It comes after the next one.
    Swap,
    /// This comes in its place.
    Instead(Value),
    /// This comes in its place, and then the watch ends.
    End(Value),
}

type RequestScript = Arc<dyn Fn(&ApiRequest) -> Reply + Send + Sync>;
type EventScript = Arc<dyn Fn(&ApiRequest, &Value) -> EventReply + Send + Sync>;

/// The proxy. It runs until it is dropped, and passes everything until it is told otherwise.
#[derive(Debug)]
pub struct ApiProxy {
    port: u16,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    api_server: String,
    client: reqwest::Client,
    requests: Mutex<RequestScript>,
    events: Mutex<EventScript>,
    asked: Mutex<Vec<ApiRequest>>,
    held: AtomicUsize,
    /// Changes where all open watches are to end.
    cut: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("api_server", &self.api_server)
            .finish_non_exhaustive()
    }
}

impl ApiProxy {
    /// Starts one on loopback before the API server that a kubeconfig of this harness names.
    ///
    /// # Errors
    /// When no port is free or the kubeconfig cannot be read.
    pub async fn start(kubeconfig: &Path) -> Result<Self> {
        crate::init();
        let cluster = read(kubeconfig)?["clusters"][0]["cluster"].clone();
        let api_server = cluster["server"].as_str().context("server")?.to_owned();
        let authority = cluster["certificate-authority"]
            .as_str()
            .context("certificate-authority")?;
        let authority = reqwest::Certificate::from_pem(&std::fs::read(authority)?)?;
        let client = reqwest::Client::builder()
            .tls_certs_only([authority])
            .no_proxy()
            .build()?;
        let shared = Arc::new(Shared {
            api_server,
            client,
            requests: Mutex::new(Arc::new(|_| Reply::Pass)),
            events: Mutex::new(Arc::new(|_, _| EventReply::Pass)),
            asked: Mutex::default(),
            held: AtomicUsize::new(0),
            cut: watch::Sender::new(0),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // Ends only with the runtime.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { port, shared, server })
    }

    /// Writes a kubeconfig like `kubeconfig` that leads through this proxy.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn kubeconfig(&self, kubeconfig: &Path, directory: &RunDirectory) -> Result<PathBuf> {
        let mut config = read(kubeconfig)?;
        config["clusters"][0]["cluster"] = json!({ "server": format!("http://127.0.0.1:{}", self.port) });
        directory.write(&format!("through-{}.kubeconfig", self.port), config.to_string())
    }

    /// From now on `script` says what becomes of requests.
    pub fn requests(&self, script: impl Fn(&ApiRequest) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.requests) = Arc::new(script);
    }

    /// From now on `script` says what becomes of the events of watches, also of those that are open.
    pub fn events(&self, script: impl Fn(&ApiRequest, &Value) -> EventReply + Send + Sync + 'static) {
        *lock(&self.shared.events) = Arc::new(script);
    }

    /// From now on everything passes.
    pub fn heal(&self) {
        self.requests(|_| Reply::Pass);
        self.events(|_, _| EventReply::Pass);
    }

    /// Ends all open watches.
    pub fn cut_watches(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// How many requests were held so far. One that is forwarded counts when the API server has answered it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// All requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<ApiRequest> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn read(kubeconfig: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(kubeconfig)?)?)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match reply(&shared, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn reply(shared: &Arc<Shared>, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let asked = ApiRequest {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        body: axum::body::to_bytes(body, MAX_REQUEST_BYTES).await?,
        at: Instant::now(),
    };
    lock(&shared.asked).push(asked.clone());
    let script = Arc::clone(&lock(&shared.requests));
    let limit = match script(&asked) {
        Reply::Pass => None,
        Reply::PassFor(limit) => Some(limit),
        Reply::Hold => hold(shared).await,
        Reply::ForwardAndHold => {
            forward(shared, &asked, &head.headers).await?.bytes().await?;
            hold(shared).await
        }
        Reply::Answer(status, headers, body) => return Ok(scripted(status, &headers, body)?),
    };
    let answer = forward(shared, &asked, &head.headers).await?;
    let (status, content_type) = (answer.status(), answer.headers().get(CONTENT_TYPE).cloned());
    let mut response = if asked.is_watch() {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(events(Arc::clone(shared), asked, answer, limit, sender));
        let next = |mut receiver: mpsc::Receiver<Bytes>| async { Some((receiver.recv().await?, receiver)) };
        Body::from_stream(futures::stream::unfold(receiver, next).map(Ok::<_, std::io::Error>)).into_response()
    } else {
        Body::from(answer.bytes().await?).into_response()
    };
    *response.status_mut() = status;
    response
        .headers_mut()
        .extend(content_type.map(|value| (CONTENT_TYPE, value)));
    Ok(response)
}

async fn hold<T>(shared: &Shared) -> T {
    shared.held.fetch_add(1, Ordering::SeqCst);
    std::future::pending().await
}

fn scripted(status: u16, headers: &[(&str, String)], body: String) -> Result<Response, axum::http::Error> {
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(body))
}

async fn forward(shared: &Shared, asked: &ApiRequest, headers: &HeaderMap) -> Result<reqwest::Response> {
    let query = if asked.query.is_empty() {
        String::new()
    } else {
        format!("?{}", asked.query)
    };
    let url = format!("{}{}{query}", shared.api_server, asked.path);
    let mut headers = headers.clone();
    for own in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(own);
    }
    anyhow::ensure!(headers.contains_key(AUTHORIZATION), "a request without a token");
    let request = shared.client.request(asked.method.clone(), url).headers(headers);
    Ok(request.body(asked.body.clone()).send().await?)
}

/// Forwards the lines of a watch as the script says, until one end of it closes, the time is over or it is cut.
async fn events(
    shared: Arc<Shared>,
    asked: ApiRequest,
    answer: reqwest::Response,
    limit: Option<Duration>,
    sender: mpsc::Sender<Bytes>,
) {
    let mut cut = shared.cut.subscribe();
    let forwarded = async {
        let (mut chunks, mut received, mut late) = (answer.bytes_stream(), Vec::new(), Vec::new());
        while let Some(Ok(chunk)) = chunks.next().await {
            received.extend_from_slice(&chunk);
            while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = received.drain(..=end).collect();
                let event = serde_json::from_slice(&line).unwrap_or_default();
                let script = Arc::clone(&lock(&shared.events));
                let lines = match script(&asked, &event) {
                    EventReply::Pass => [line, std::mem::take(&mut late)].concat(),
                    EventReply::Double => [line.clone(), line, std::mem::take(&mut late)].concat(),
                    EventReply::Instead(other) => {
                        [format!("{other}\n").into_bytes(), std::mem::take(&mut late)].concat()
                    }
                    EventReply::Drop => continue,
                    EventReply::Swap => {
                        late.extend(line);
                        continue;
                    }
                    EventReply::End(last) => {
                        let _ = sender.send(format!("{last}\n").into()).await;
                        return;
                    }
                };
                if sender.send(lines.into()).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = forwarded => {}
        () = sender.closed() => {}
        _ = cut.changed() => {}
        () = tokio::time::sleep(limit.unwrap_or(Duration::from_hours(1))) => {}
    }
}
