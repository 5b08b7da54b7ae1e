//! Sends requests: guarded, observed, redirected by hand, retried. Knows nothing of tokens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use tracing::debug;

use super::observer::{RequestKind, RequestObserver};
use crate::adapters::network::circuit_breaker::{CircuitBreakers, Route};
use crate::adapters::network::egress::{EgressPolicy, host_of};
use crate::adapters::network::resolver::REQUESTER;
use crate::adapters::network::{NetworkError, redirect, retry};
use crate::domain::access::{AccessKey, Tenant};
use crate::domain::digest::Digest;
use crate::pipeline::fair_semaphore::FairSemaphore;
use crate::pipeline::ports::RegistryError;

/// One request, as often as it has to be sent.
#[derive(Debug, Clone)]
pub(super) struct RegistryRequest {
    /// What it is for.
    pub(super) kind: RequestKind,
    /// The host that messages name.
    pub(super) host: String,
    /// What is requested, as messages name it.
    pub(super) resource: String,
    pub(super) method: Method,
    pub(super) url: Url,
    /// The media types of an acceptable response.
    pub(super) accept: &'static [&'static str],
    /// Request the bytes from this one on.
    pub(super) from: u64,
    /// A form to post.
    pub(super) form: Option<String>,
    /// Whether redirects are followed.
    pub(super) follows: bool,
}

impl RegistryRequest {
    pub(super) fn protocol(&self, cause: impl Into<String>) -> RegistryError {
        RegistryError::Protocol {
            host: self.host.clone(),
            resource: self.resource.clone(),
            cause: cause.into(),
        }
    }

    pub(super) fn too_large(&self, limit: u64) -> RegistryError {
        RegistryError::TooLarge {
            host: self.host.clone(),
            resource: self.resource.clone(),
            limit,
        }
    }

    /// The error for an unexpected status.
    pub(super) fn unexpected(&self, status: StatusCode) -> RegistryError {
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                host: self.host.clone(),
                resource: self.resource.clone(),
            },
            status if status.is_server_error() => self.unavailable(status),
            status if status.is_redirection() => self.protocol("a redirect, which is not followed here"),
            status => self.protocol(format!("status {}", status.as_u16())),
        }
    }

    fn unavailable(&self, status: StatusCode) -> RegistryError {
        RegistryError::Unavailable {
            host: self.host.clone(),
            resource: self.resource.clone(),
            status: status.as_u16(),
        }
    }
}

/// The way to the network for one access.
#[derive(Clone)]
pub(super) struct HttpSender {
    pub(super) client_name: &'static str,
    pub(super) http: Client,
    pub(super) egress: Arc<EgressPolicy>,
    pub(super) circuit_breakers: Arc<CircuitBreakers>,
    /// Places for large bodies.
    pub(super) large_bodies: FairSemaphore,
    /// The fingerprint of the transport settings.
    pub(super) settings: Digest,
    pub(super) tenant: Tenant,
    pub(super) access_key: AccessKey,
    pub(super) observer: Arc<dyn RequestObserver>,
}

impl HttpSender {
    /// Sends until there is a response that a retry would not improve. Responses 429 and 5xx become errors.
    pub(super) async fn send(
        &self,
        request: &RegistryRequest,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut attempt = 1;
        loop {
            let (error, pause) = match self.follow(request, authorization).await {
                Ok(response) => match Self::retry_later(request, &response, attempt) {
                    None => return Ok(response),
                    Some(later) => later,
                },
                Err(RegistryError::Unreachable { host, cause }) => {
                    let is_dead = self.circuit_breakers.is_open(&self.route(&host)).await;
                    let pause = (!is_dead).then(|| retry::pause(attempt));
                    (RegistryError::Unreachable { host, cause }, pause)
                }
                Err(error) => return Err(error),
            };
            match pause {
                Some(pause) if attempt < retry::ATTEMPTS => tokio::time::sleep(pause).await,
                _ => return Err(error),
            }
            attempt += 1;
        }
    }

    /// For a response that says "later": the error it becomes in the end, and the pause before a retry from here.
    fn retry_later(
        request: &RegistryRequest,
        response: &Response,
        attempt: u32,
    ) -> Option<(RegistryError, Option<Duration>)> {
        let status = response.status();
        let wait = retry::after(response.headers(), Timestamp::now());
        let limited = |wait| RegistryError::RateLimited {
            host: request.host.clone(),
            wait,
        };
        let pause = Some(retry::pause(attempt));
        match (status.as_u16(), wait) {
            (429 | 503, Some(wait)) => Some((limited(wait), (wait <= retry::LONGEST_PAUSE).then_some(wait))),
            (429, None) => Some((limited(retry::DEFAULT_WAIT), pause)),
            (500 | 502 | 503 | 504, _) => Some((request.unavailable(status), pause)),
            _ => None,
        }
    }

    /// Follows redirects by hand, because the library's own would neither guard nor refuse.
    async fn follow(
        &self,
        request: &RegistryRequest,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut url = request.url.clone();
        let mut authorization = authorization;
        for _ in 0..=redirect::MAX_REDIRECTS {
            let response = self.send_once(request, &url, authorization).await?;
            if !(request.follows && is_redirect(response.status())) {
                return Ok(response);
            }
            let next = redirect::target(&url, response.headers()).map_err(|cause| request.protocol(cause))?;
            // Once dropped it stays dropped, even if a later redirect leads back.
            authorization = authorization.filter(|_| redirect::same_origin(&url, &next));
            url = next;
        }
        Err(request.protocol(format!("more than {} redirects", redirect::MAX_REDIRECTS)))
    }

    async fn send_once(
        &self,
        request: &RegistryRequest,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let host = host_of(url);
        self.egress.check_url(url).await?;
        let route = self.route(&host);
        let caller = (self.tenant.clone(), self.access_key);
        let attempt = self.circuit_breakers.attempt(route, caller).await?;
        let started = Instant::now();
        let sending = self.build(request, url, authorization).send();
        let sent = REQUESTER.scope(self.tenant.clone(), sending).await;
        let status = sent.as_ref().ok().map(|response| response.status().as_u16());
        self.observer.request(request.kind, status);
        debug!(request = ?request.kind, host, status, elapsed = ?started.elapsed(), "registry request");
        let sent = sent.map_err(|error| NetworkError::from_request(&host, &error));
        match &sent {
            Err(error @ NetworkError::Unreachable { .. }) => attempt.failed(error.clone()),
            // It says nothing about the host.
            Err(NetworkError::TooManyLookups { .. }) => drop(attempt),
            // A certificate that is not accepted came from a host that answers.
            _ => attempt.answered(),
        }
        Ok(sent?)
    }

    fn route(&self, host: &str) -> Route {
        Route {
            host: host.to_owned(),
            settings: self.settings,
        }
    }

    fn build(&self, request: &RegistryRequest, url: &Url, authorization: Option<&HeaderValue>) -> RequestBuilder {
        let mut builder = self.http.request(request.method.clone(), url.clone());
        builder = builder.header(ACCEPT, request.accept.join(", "));
        if let Some(authorization) = authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if request.from > 0 {
            builder = builder.header(RANGE, format!("bytes={}-", request.from));
        }
        match &request.form {
            Some(form) => builder
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone()),
            None => builder,
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
