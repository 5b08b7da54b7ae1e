//! A proxy that breaks connections as it is told: between the operator and a registry, or an API server.
//!
//! It forwards bytes and knows of HTTP only where an answer begins. Which connections a fault meets is decided by a
//! seeded generator, so that a run can be told again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a connection that stands still is kept open, if the client does not give up before.
const STALL: Duration = Duration::from_mins(2);

/// What is wrong with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is reset as soon as the client has sent something.
    Reset,
    /// It is accepted, and nothing ever comes back.
    Stall,
    /// The first request is answered with this status, without asking further.
    Status(u16),
    /// The first request is answered 429, with this `Retry-After` in seconds.
    RateLimited(u32),
    /// An answer begins, and its headers never end.
    EndlessHeaders,
    /// Answers come in pieces of 512 bytes, 20 ms apart.
    Slow,
    /// So many bytes of the answers come, and then the end.
    Truncate(usize),
    /// One byte of each piece of the answers is another.
    WrongByte,
}

impl Fault {
    /// Every fault that a registry may have.
    pub const REGISTRY: [Self; 10] = [
        Self::Reset,
        Self::Stall,
        Self::Status(500),
        Self::Status(503),
        Self::Status(401),
        Self::RateLimited(1),
        Self::EndlessHeaders,
        Self::Slow,
        Self::Truncate(700),
        Self::WrongByte,
    ];
    /// Those that make sense below TLS.
    pub const TRANSPORT: [Self; 4] = [Self::Reset, Self::Stall, Self::Slow, Self::Truncate(3000)];
}

/// Which share of the connections meets which faults.
#[derive(Debug, Clone, Default)]
struct Plan {
    faults: Vec<Fault>,
    percent: u8,
}

/// The proxy. It runs until it is dropped.
#[derive(Debug)]
pub struct FaultyProxy {
    port: u16,
    plan: watch::Sender<Plan>,
    server: JoinHandle<()>,
}

impl FaultyProxy {
    /// Starts one on loopback that forwards to `upstream` (`127.0.0.1:port`), without faults at first.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(upstream: String, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let plan = watch::Sender::new(Plan::default());
        let (plans, random) = (plan.clone(), Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))));
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut changed = plans.subscribe();
                let fault = choose(&changed.borrow_and_update(), &random);
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    // A connection from before a change would not meet the faults that come with it.
                    tokio::select! {
                        _ = changed.changed() => {}
                        _ = serve(client, &upstream, fault) => {}
                    }
                });
            }
        });
        Ok(Self { port, plan, server })
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on `percent` of the connections meet one of `faults`. Connections that are open are cut.
    pub fn set(&self, faults: &[Fault], percent: u8) {
        self.plan.send_replace(Plan {
            faults: faults.to_vec(),
            percent,
        });
    }

    /// From now on there are no faults.
    pub fn heal(&self) {
        self.set(&[], 0);
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn choose(plan: &Plan, random: &Mutex<fastrand::Rng>) -> Option<Fault> {
    let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
    let is_hit = random.u8(0..100) < plan.percent;
    is_hit.then(|| random.choice(&plan.faults).copied()).flatten()
}

async fn serve(mut client: TcpStream, upstream: &str, fault: Option<Fault>) -> Result<()> {
    let mut first = [0; 1];
    match fault {
        Some(Fault::Reset) => {
            client.peek(&mut first).await?;
            client.set_zero_linger()?;
        }
        Some(Fault::Stall) => tokio::time::sleep(STALL).await,
        Some(Fault::Status(status)) => answer(&mut client, status, "").await?,
        Some(Fault::RateLimited(seconds)) => answer(&mut client, 429, &format!("Retry-After: {seconds}\r\n")).await?,
        Some(Fault::EndlessHeaders) => {
            read_request(&mut client).await?;
            client.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for number in 0..10_000 {
                client.write_all(format!("X-{number}: x\r\n").as_bytes()).await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Some(Fault::Slow | Fault::Truncate(_) | Fault::WrongByte) | None => forward(client, upstream, fault).await?,
    }
    Ok(())
}

/// Reads what has come of the request, which is all of it for a `GET`, and forgets it.
async fn read_request(client: &mut TcpStream) -> Result<()> {
    let _size = client.read(&mut [0; 4096]).await?;
    Ok(())
}

async fn answer(client: &mut TcpStream, status: u16, header: &str) -> Result<()> {
    read_request(client).await?;
    let answer = format!("HTTP/1.1 {status} Faulty\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n");
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await?;
    Ok(())
}

async fn forward(client: TcpStream, upstream: &str, fault: Option<Fault>) -> Result<()> {
    let (mut from_server, mut to_server) = TcpStream::connect(upstream).await?.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answers = async {
        let (mut piece, mut sent) = (vec![0; if fault == Some(Fault::Slow) { 512 } else { 16 << 10 }], 0);
        loop {
            let length = from_server.read(&mut piece).await?;
            let Some(bytes) = piece.get_mut(..length).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            match fault {
                Some(Fault::Slow) => tokio::time::sleep(Duration::from_millis(20)).await,
                Some(Fault::Truncate(limit)) if sent + length > limit => {
                    to_client.write_all(&bytes[..limit.saturating_sub(sent)]).await?;
                    return Ok(());
                }
                Some(Fault::WrongByte) => bytes[length - 1] ^= 0x55,
                _ => {}
            }
            to_client.write_all(bytes).await?;
            sent += length;
        }
    };
    let ended: std::io::Result<()> = tokio::select! { ended = requests => ended, ended = answers => ended };
    Ok(ended?)
}
