use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A server that answers one request and keeps the connection open.
async fn serve(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.expect("accepted");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("request"));
    }
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(response).await.expect("answered");
    std::future::pending::<()>().await;
}

/// The kind of timer that runs on the connection to a local port: 00 none, 02 keepalive; see proc(5).
fn timer(port: u16) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("table");
    let remote = format!(":{port:04X}");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut open = fields.filter(|fields| fields.len() > 5 && fields[2].ends_with(&remote) && fields[3] == "01");
    let timer = open.next()?[5].split(':').next()?;
    Some(timer.to_owned())
}

#[tokio::test]
async fn a_connection_notices_when_the_other_side_is_gone() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address");
    let server = tokio::spawn(serve(listener));
    let client = client(Config::new(format!("http://{address}").parse().expect("address"))).expect("client");
    let request = http::Request::get("/readyz").body(Vec::new()).expect("request");
    let response = tokio::time::timeout(Duration::from_secs(10), client.request_text(request));
    assert_eq!(response.await.expect("in time").expect("answer"), "{}");
    assert_eq!(timer(address.port()).as_deref(), Some("02"));
    server.abort();
}

#[tokio::test]
async fn an_api_server_without_a_host_or_an_address_says_why() {
    let without_host = Config::new("/api".parse().expect("path"));
    assert!(matches!(addresses(&without_host).await, Err(ConnectError::MissingHost)));
    // No label of a name is so long, so nothing is sent to find its address.
    let unknown = format!("https://{}.invalid:6443", "x".repeat(64));
    let unknown = Config::new(unknown.parse().expect("URL"));
    let error = addresses(&unknown).await.expect_err("no address");
    assert!(std::error::Error::source(&error).is_some(), "{error}");
    let known = Config::new("https://[::1]:6443".parse().expect("URL"));
    let expected = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 6443));
    assert_eq!(addresses(&known).await.expect("address"), [expected]);
}
