use std::convert::Infallible;
use std::pin::Pin;

use futures::stream;
use http::StatusCode;
use http_body_util::StreamBody;
use rstest::rstest;
use tower::{ServiceExt as _, service_fn};

use super::*;

const LIMIT: Duration = Duration::from_millis(50);

type Frames = Pin<Box<dyn futures::Stream<Item = Result<Frame, Infallible>> + Send>>;
type Frame = http_body::Frame<Bytes>;

/// What a server does after it has accepted a request.
#[derive(Clone, Copy)]
enum Server {
    Answers,
    SaysNothing,
    StopsInTheBody,
}

fn response(frames: Frames) -> Response<StreamBody<Frames>> {
    Response::new(StreamBody::new(frames))
}

async fn answer(server: Server) -> Result<Response<StreamBody<Frames>>, Infallible> {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"{}")))]);
    Ok(match server {
        Server::Answers => response(Box::pin(first)),
        Server::SaysNothing => std::future::pending().await,
        Server::StopsInTheBody => response(Box::pin(futures::StreamExt::chain(first, stream::pending()))),
    })
}

async fn call(server: Server, uri: &'static str) -> Result<Response<impl BodyExt<Data = Bytes>>, BoxError> {
    let limited = TimeLimit {
        inner: service_fn(move |_: Request<Body>| answer(server)),
        response: LIMIT,
        watch_start: LIMIT,
    };
    let request = Request::get(uri).body(Body::empty()).expect("request");
    let called = tokio::time::timeout(Duration::from_secs(30), limited.oneshot(request));
    called.await.expect("ends by itself")
}

#[rstest]
#[case::headers(Server::SaysNothing, "/api/v1/namespaces/acme/secrets/pull")]
#[case::body(Server::StopsInTheBody, "/api/v1/namespaces/acme/secrets/pull")]
#[case::list(Server::StopsInTheBody, "/apis/opcr.io/v1alpha1/policyimages?limit=50")]
#[case::start_of_a_watch(Server::SaysNothing, "/api/v1/configmaps?&watch=true&timeoutSeconds=290")]
#[tokio::test]
async fn a_server_that_stops_answering_holds_nobody(#[case] server: Server, #[case] uri: &'static str) {
    let error = call(server, uri).await.err().expect("given up").to_string();
    assert_eq!(
        error,
        "no complete response within 0.05 s, in which 429, 503 and 504 were tried again"
    );
}

#[tokio::test]
async fn a_response_is_passed_on_whole() {
    let response = call(Server::Answers, "/api/v1/namespaces/acme/secrets/pull")
        .await
        .expect("response");
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.ok().expect("body").to_bytes();
    assert_eq!(body.as_ref(), b"{}");
}

#[tokio::test]
async fn a_watch_may_be_quiet_for_longer() {
    let response = call(
        Server::StopsInTheBody,
        "/api/v1/configmaps?watch=true&timeoutSeconds=290",
    );
    let mut body = Box::pin(response.await.expect("started").into_body());
    assert!(body.frame().await.expect("frame").is_ok());
    let next = tokio::time::timeout(LIMIT * 4, body.frame()).await;
    assert!(next.is_err(), "the stream is still open");
}
