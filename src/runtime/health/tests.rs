use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::runtime::listen::{bind, serve};

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(router: Router) -> Server {
    let listener = bind("--health-addr", "127.0.0.1:0".parse().expect("address"))
        .await
        .expect("bound");
    let address = listener.local_addr().expect("address");
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, router, async {
        let _ = stopped.await;
    }));
    Server { address, stop, task }
}

/// Sends bytes and reads until the server closes the connection, as it must by itself.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request).await.expect("sent");
    let mut response = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut response))
        .await
        .expect("closed");
    String::from_utf8_lossy(&response).into_owned()
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = exchange(
        address,
        format!("GET {path} HTTP/1.1\r\nhost: probe\r\n\r\n").as_bytes(),
    )
    .await;
    let status = response
        .split(' ')
        .nth(1)
        .expect("status line")
        .parse()
        .expect("status");
    (status, response.split_once("\r\n\r\n").expect("body").1.to_owned())
}

#[tokio::test]
async fn readiness_follows_the_program_and_liveness_does_not() {
    let readiness = Readiness::waiting_for("the caches are not filled yet");
    let server = start(health(readiness.clone())).await;
    assert_eq!(
        get(server.address, "/readyz").await,
        (503, "the caches are not filled yet\n".to_owned())
    );
    assert_eq!(get(server.address, "/healthz").await, (200, "ok\n".to_owned()));
    readiness.ready();
    assert_eq!(get(server.address, "/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(server.address, "/metrics").await.0, 404);
}

#[tokio::test]
async fn every_source_of_readiness_is_asked_at_each_probe() {
    let trouble = Arc::new(std::sync::Mutex::new(None));
    let asked = Arc::clone(&trouble);
    let readiness = Readiness::waiting_for("nothing is listed yet").unless(move || asked.lock().expect("lock").clone());
    let server = start(health(readiness.clone())).await;
    *trouble.lock().expect("lock") = Some("a watch fails".to_owned());
    let both = "nothing is listed yet\na watch fails\n".to_owned();
    assert_eq!(get(server.address, "/readyz").await, (503, both));
    readiness.ready();
    let one = "a watch fails\n".to_owned();
    assert_eq!(get(server.address, "/readyz").await, (503, one));
    *trouble.lock().expect("lock") = None;
    assert_eq!(get(server.address, "/readyz").await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn metrics_are_served_in_the_open_metrics_format() {
    let server = start(metrics(Arc::new(|| Ok("# EOF\n".to_owned())))).await;
    let response = exchange(server.address, b"GET /metrics HTTP/1.1\r\nhost: prometheus\r\n\r\n").await;
    assert!(
        response.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{response}"
    );
    assert!(response.ends_with("# EOF\n"), "{response}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start(health(Readiness::waiting_for("x"))).await;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(15_000));
    assert!(
        exchange(server.address, request.as_bytes())
            .await
            .starts_with("HTTP/1.1 200")
    );
    let request = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(17_000));
    assert!(
        exchange(server.address, request.as_bytes())
            .await
            .starts_with("HTTP/1.1 431")
    );
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_cut() {
    let server = start(health(Readiness::waiting_for("x"))).await;
    let started = Instant::now();
    exchange(server.address, b"GET /healthz HT").await;
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
}

#[tokio::test]
async fn shutdown_ends_the_server_although_a_client_hangs() {
    let server = start(health(Readiness::waiting_for("x"))).await;
    let _hanging = TcpStream::connect(server.address).await.expect("connected");
    get(server.address, "/healthz").await;
    server.stop.send(()).expect("running");
    tokio::time::timeout(Duration::from_secs(3), server.task)
        .await
        .expect("ended in time")
        .expect("no panic");
    TcpStream::connect(server.address).await.expect_err("closed");
}
