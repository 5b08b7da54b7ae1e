//! Listening on a port, for the small plain-text servers: few clients, short responses, nobody served for long.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// At most this many clients at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// A client must have sent its request's head within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection lives at most this long: one request, read and answered.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head has at most this many bytes and header fields; more is answered with 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Responses under way at shutdown get this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// An address to listen on: `127.0.0.1:8081`, `[::1]:8081`, or `:8081` for every address of both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    ip: Option<IpAddr>,
    port: u16,
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ListenAddressError { text: text.to_owned() };
        if let Some(port) = text.strip_prefix(':') {
            // `u16::from_str` takes a sign.
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
            return Ok(Self { ip: None, port });
        }
        let address: SocketAddr = text.parse().map_err(|_| wrong())?;
        Ok(Self {
            ip: Some(address.ip()),
            port: address.port(),
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(formatter),
            None => write!(formatter, ":{}", self.port),
        }
    }
}

/// A text that is no [`ListenAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an address to listen on; write ':8081', '127.0.0.1:8081' or '[::1]:8081'")]
pub struct ListenAddressError {
    /// What was given.
    text: String,
}

/// The port could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on '{address}', the value of '{flag}'; free the port or choose another")]
pub struct BindError {
    flag: &'static str,
    address: ListenAddress,
    #[source]
    cause: io::Error,
}

/// Binds `address` and logs what was bound, which differs if the port is 0. `flag` is for messages.
///
/// # Errors
/// [`BindError`] if the port is taken or the address is not this host's.
pub async fn bind(flag: &'static str, address: ListenAddress) -> Result<TcpListener, BindError> {
    let bound = match address.ip {
        Some(ip) => TcpListener::bind((ip, address.port)).await,
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, address.port)).await {
            Ok(listener) => Ok(listener),
            // A port in use is in use in both families; anything else may only mean that this host has no IPv6.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port)).await,
        },
    };
    let listener = bound.map_err(|cause| BindError { flag, address, cause })?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(flag, %address, "listening");
    }
    Ok(listener)
}

/// Serves `router` until `shutdown` resolves, then lets responses under way end for a second.
///
/// Connections are closed after one request: probes and scrapes are rare, and a connection that may not idle needs no
/// other defence against clients who hold one open.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let stream = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            Ok((slot, stream)) = accept(&listener, &slots) => (slot, stream),
        };
        let router = router.clone();
        connections.spawn(async move {
            let (_slot, stream) = stream;
            serve_connection(stream, router).await;
        });
    }
    drop(listener);
    let drained = timeout(DRAIN_TIMEOUT, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    if drained.is_err() {
        tracing::debug!("connections were cut at shutdown");
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Result<(Slot, TcpStream), Infallible> {
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            std::future::pending().await
        };
        match listener.accept().await {
            Ok((stream, _)) => return Ok((slot, stream)),
            // Out of file descriptors, or a client that left. Either passes, and must not spin.
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection broke"),
        Err(_) => tracing::debug!("a slow connection was cut"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(":8081")]
    #[case(":0")]
    #[case("127.0.0.1:8081")]
    #[case("[::1]:0")]
    fn an_address_reads_back_as_it_is_written(#[case] text: &str) {
        assert_eq!(text.parse::<ListenAddress>().expect("address").to_string(), text);
    }

    #[rstest]
    #[case("")]
    #[case("8081")]
    #[case(":")]
    #[case(":+8081")]
    #[case(":65536")]
    #[case("localhost:8081")]
    #[case("::1:8081:")]
    fn anything_else_is_refused_with_an_example(#[case] text: &str) {
        let error = text.parse::<ListenAddress>().expect_err("refused").to_string();
        assert!(
            error.contains(&format!("'{text}'")) && error.contains("':8081'"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_taken_port_names_flag_and_address() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = taken.local_addr().expect("address");
        let error = bind("--health-addr", address.to_string().parse().expect("address"))
            .await
            .expect_err("taken");
        assert_eq!(
            error.to_string(),
            format!("cannot listen on '{address}', the value of '--health-addr'; free the port or choose another")
        );
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn no_host_means_every_address() {
        let listener = bind("--health-addr", ":0".parse().expect("address"))
            .await
            .expect("bound");
        let port = listener.local_addr().expect("address").port();
        TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("reachable by IPv4");
    }
}
