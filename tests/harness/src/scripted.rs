//! A server that answers as a test says, however wrong: a registry, a token server or a blob store under an attacker's
//! control. It speaks HTTP/1.1 byte by byte, so that it can lie about lengths, break off and stand still.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::tls::{Authority, Certified};

/// Largest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// How long a server stands still if it is told to.
const STALL: Duration = Duration::from_secs(30);

/// A request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET`, `HEAD`, `POST`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query without its question mark, or empty.
    pub query: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Asked {
    /// The value of a header, or empty.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    declared: Option<usize>,
    chunked: bool,
    sent: Option<usize>,
    then_stall: bool,
}

impl Answer {
    /// An answer without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// 200 with a body.
    #[must_use]
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).body(body)
    }

    /// The body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// States another `Content-Length` than the body has.
    #[must_use]
    pub fn declaring(mut self, bytes: usize) -> Self {
        self.declared = Some(bytes);
        self
    }

    /// Sends the body in one chunk and never says that it was the last.
    #[must_use]
    pub fn chunked_without_end(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Closes the connection after so many bytes of the body.
    #[must_use]
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.sent = Some(bytes);
        self
    }

    /// Stands still after so many bytes of the body.
    #[must_use]
    pub fn stalling_after(mut self, bytes: usize) -> Self {
        self.then_stall = true;
        self.cut_after(bytes)
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Scripted\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            // Writing to a text cannot fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let length = self.declared.unwrap_or(self.body.len());
        head + &if self.chunked {
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", self.body.len())
        } else {
            format!("Content-Length: {length}\r\n\r\n")
        }
    }
}

/// How the server is reached.
#[derive(Debug, Clone, Copy)]
pub enum Transport<'a> {
    /// Plain HTTP.
    Plain,
    /// TLS with this certificate.
    Tls(&'a Certified),
    /// TLS with this certificate, for clients with a certificate of this authority.
    MutualTls(&'a Certified, &'a Authority),
}

/// The server. It runs until it is dropped.
#[derive(Debug)]
pub struct Scripted {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: JoinHandle<()>,
}

impl Scripted {
    /// Starts one on loopback; `script` answers each request.
    ///
    /// # Errors
    /// When no port is free or the certificate cannot be used.
    pub async fn start(
        transport: Transport<'_>,
        script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_at(0, transport, script).await
    }

    /// As [`Scripted::start`], at this port: where another server was before.
    ///
    /// # Errors
    /// As [`Scripted::start`], or when the port is not free.
    pub async fn start_at(
        port: u16,
        transport: Transport<'_>,
        script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let acceptor = acceptor(transport)?;
        let (asked, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(script));
        let log = Arc::clone(&asked);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log, script) = (acceptor.clone(), Arc::clone(&log), Arc::clone(&script));
                tokio::spawn(async move {
                    // A client may go away in the middle; the test sees that on its own side.
                    let _ = match acceptor {
                        None => serve(stream, &log, script.as_ref()).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, &log, script.as_ref()).await,
                            Err(error) => Err(error.into()),
                        },
                    };
                });
            }
        });
        Ok(Self { port, asked, server })
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// All requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn acceptor(transport: Transport<'_>) -> Result<Option<TlsAcceptor>> {
    let (certified, clients) = match transport {
        Transport::Plain => return Ok(None),
        Transport::Tls(certified) => (certified, None),
        Transport::MutualTls(certified, clients) => (certified, Some(clients)),
    };
    crate::init();
    let chain = CertificateDer::pem_slice_iter(certified.certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes())?;
    let builder = match clients {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes())?)?;
            ServerConfig::builder().with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?)
        }
    };
    Ok(Some(TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key)?))))
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: &Mutex<Vec<Asked>>,
    script: &(dyn Fn(&Asked) -> Answer + Send + Sync),
) -> Result<()> {
    let asked = match read(&mut stream).await {
        Ok(asked) => asked,
        Err(error) => {
            // As servers do that are asked in another protocol, such as TLS.
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                .await?;
            return Err(error);
        }
    };
    let is_head = asked.method == "HEAD";
    let answer = script(&asked);
    log.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    stream.write_all(answer.head().as_bytes()).await?;
    if !is_head {
        let sent = answer.sent.unwrap_or(answer.body.len()).min(answer.body.len());
        stream.write_all(&answer.body[..sent]).await?;
    }
    stream.flush().await?;
    if answer.then_stall {
        tokio::time::sleep(STALL).await;
    }
    stream.shutdown().await?;
    Ok(())
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        anyhow::ensure!(bytes.len() < MAX_REQUEST_BYTES, "the request is too large");
        anyhow::ensure!(stream.read_buf(&mut bytes).await? > 0, "the request ended early");
        anyhow::ensure!(bytes[0].is_ascii_uppercase(), "the request is not HTTP");
    };
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = first.next().zip(first.next()).context("request line")?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
    anyhow::ensure!(length < MAX_REQUEST_BYTES, "the request is too large");
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        anyhow::ensure!(stream.read_buf(&mut body).await? > 0, "the request ended early");
    }
    Ok(Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: String::from_utf8(body)?,
    })
}
