//! A time limit for every call to the API server.
//!
//! A server that accepts and never responds, or that stops in the middle of a response, would otherwise block its
//! caller for ever: a run with its slot, a list with its watch. The client's own read timeout does not help: it would
//! end watches, which are quiet for minutes.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Either, Full};
use kube::client::Body;
use tower::{BoxError, Service};

/// Most time for a response to the last byte, retries included. Webhooks have at most 30 s each, but for a cluster that
/// needs that long a retry is better.
const RESPONSE_LIMIT: Duration = Duration::from_secs(30);

/// Most time until the response to a watch begins. After that the watcher checks for signs of life by itself.
pub(crate) const WATCH_START_LIMIT: Duration = Duration::from_secs(10);

/// The API server did not respond in time, or only with errors that the client tries again.
#[derive(Debug, thiserror::Error)]
#[error("no complete response within {} s, in which 429, 503 and 504 were tried again", .0.as_secs_f32())]
struct ResponseTimeout(Duration);

/// A service whose every call ends in time.
#[derive(Debug, Clone)]
pub(super) struct TimeLimit<S> {
    inner: S,
    response: Duration,
    watch_start: Duration,
}

impl<S> TimeLimit<S> {
    /// With the limits of this program.
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            response: RESPONSE_LIMIT,
            watch_start: WATCH_START_LIMIT,
        }
    }
}

impl<S, B> Service<Request<Body>> for TimeLimit<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: BodyExt<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Either<B, Full<Bytes>>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watches = is_watch(request.uri());
        let limit = if watches { self.watch_start } else { self.response };
        let call = self.inner.call(request);
        let response = async move {
            let response = call.await.map_err(Into::into)?;
            if watches {
                return Ok(response.map(Either::Left));
            }
            let (head, body) = response.into_parts();
            let bytes = body.collect().await.map_err(Into::into)?.to_bytes();
            Ok(Response::from_parts(head, Either::Right(Full::new(bytes))))
        };
        Box::pin(async move {
            tokio::time::timeout(limit, response)
                .await
                .map_err(|_| BoxError::from(ResponseTimeout(limit)))?
        })
    }
}

fn is_watch(uri: &Uri) -> bool {
    uri.query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

#[cfg(test)]
mod tests;
