//! Registries that fail at one of their endpoints, or keep a connection open without using it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use policy_operator::pipeline::ports::{Registry as _, RegistryError};
use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const BLOB: &[u8] = b"the bytes of a layer";

/// What a registry may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Token,
    Head,
    Manifest,
    Blob,
    Referrers,
    Tags,
}

impl Question {
    fn is_asked_by(self, asked: &Asked) -> bool {
        let (is_head, path) = (asked.method == "HEAD", &asked.path);
        match self {
            Self::Token => path == "/token",
            Self::Head => is_head,
            Self::Manifest => !is_head && path.contains("/manifests/"),
            Self::Blob => path.contains("/blobs/"),
            Self::Referrers => path.contains("/referrers/"),
            Self::Tags => path.ends_with("/tags/list"),
        }
    }

    async fn ask(self, setup: &Setup, host: &str) -> Result<(), RegistryError> {
        let (client, repository, access) = (&setup.client, &repository(host), &insecure());
        match self {
            Self::Token | Self::Manifest => client.manifest(repository, &tagged("1.0"), access).await.map(drop),
            Self::Head => client.resolve(repository, &tag("1.0"), access).await.map(drop),
            Self::Blob => client.blob(repository, &layer(BLOB), access).await.map(drop),
            Self::Referrers => client.referrers(repository, &Digest::of(b"{}"), access).await.map(drop),
            Self::Tags => tags(client, repository, access).await.map(drop),
        }
    }
}

fn good_answer(asked: &Asked) -> Answer {
    match asked.path.as_str() {
        "/token" => Answer::ok(r#"{"token":"good"}"#),
        _ if asked.header("authorization") != "Bearer good" => {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="acme""#, asked.header("host"));
            Answer::status(401).header("WWW-Authenticate", challenge)
        }
        path if path.contains("/blobs/") => Answer::ok(BLOB),
        path if path.contains("/referrers/") => {
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
            Answer::ok(index.to_string()).header("Content-Type", INDEX)
        }
        path if path.ends_with("/tags/list") => Answer::ok(r#"{"tags":["1.0"]}"#),
        _ => manifest_answer(b"{}").header("Docker-Content-Digest", Digest::of(b"{}").to_string()),
    }
}

/// F02: an endpoint that fails is asked three times, and its failure is never taken for an answer, such as that there is
/// nothing. When it works again, so does the client.
#[rstest]
#[tokio::test]
async fn an_endpoint_that_fails_is_unavailable_and_nothing_else_until_it_answers(
    #[values(
        Question::Token,
        Question::Head,
        Question::Manifest,
        Question::Blob,
        Question::Referrers,
        Question::Tags
    )]
    question: Question,
    #[values(500, 502, 503)] status: u16,
) {
    let fails_with = Arc::new(AtomicU16::new(status));
    let fault = Arc::clone(&fails_with);
    let server = plain(move |asked| match fault.load(Ordering::SeqCst) {
        0 => good_answer(asked),
        status if question.is_asked_by(asked) => Answer::status(status),
        _ => good_answer(asked),
    })
    .await;
    let setup = setup();
    let failed = question.ask(&setup, &server.host()).await;
    assert!(
        matches!(failed, Err(RegistryError::Unavailable { status: told, .. }) if told == status),
        "{failed:?}"
    );
    let attempts = server
        .asked()
        .iter()
        .filter(|asked| question.is_asked_by(asked))
        .count();
    assert_eq!(attempts, 3);
    fails_with.store(0, Ordering::SeqCst);
    assert_eq!(question.ask(&setup, &server.host()).await, Ok(()));
}

/// A peer that does with each connection what `serve` says.
async fn peer<F: Future<Output = ()> + Send>(serve: impl Fn(TcpStream) -> F + Send + Sync + Copy + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { serve(stream).await });
        }
    });
    host
}

/// A client that waits a second for a connection and as long for each piece of an answer.
fn impatient() -> (RegistryClient, TempDir) {
    policy_operator_harness::init();
    let directory = tempfile::tempdir().unwrap();
    let mut options = RegistryOptions::new(
        "policy-operator",
        directory.path(),
        EgressPolicy::new(false, true, Vec::new()),
    );
    options.timeouts = Timeouts {
        connect: Duration::from_secs(1),
        idle: Duration::from_secs(1),
    };
    (RegistryClient::new(options).unwrap(), directory)
}

/// F05: the handshake is given up like a connection that is never made.
#[tokio::test]
async fn a_tls_handshake_that_never_goes_on_is_given_up() {
    let host = peer(|stream| async move {
        let _held = stream;
        tokio::time::sleep(Duration::from_mins(2)).await;
    })
    .await;
    let (client, _directory) = impatient();
    let started = Instant::now();
    let asked = client
        .manifest(&repository(&host), &tagged("1.0"), &RegistryAccess::default())
        .await;
    assert!(matches!(asked, Err(RegistryError::Unreachable { .. })), "{asked:?}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

/// F05: headers that never end are a kind of silence.
#[tokio::test]
async fn headers_that_never_end_are_given_up() {
    let host = peer(|mut stream| async move {
        let _size = stream.read(&mut [0; 4096]).await;
        let mut written = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while written.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            written = stream.write_all(b"X: x\r\n").await;
        }
    })
    .await;
    let (client, _directory) = impatient();
    let started = Instant::now();
    let asked = client.manifest(&repository(&host), &tagged("1.0"), &insecure()).await;
    assert!(matches!(asked, Err(RegistryError::Unreachable { .. })), "{asked:?}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}
