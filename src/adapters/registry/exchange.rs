//! One request and its answer: guard, credentials, redirects, retries.

use std::sync::Arc;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::challenge::{self, Challenge};
use super::endpoint::{authority, same_origin};
use super::guard::NetworkPolicy;
use super::observer::{RequestKind, RequestObserver};
use super::retry::retrying;
use super::token::{self, Header, Realm, Tokens};
use super::transport::Transports;
use super::{endpoint, failure};
use crate::domain::access::{Access, Credentials};
use crate::domain::reference::Repository;
use crate::pipeline::ports::RegistryError;

/// Most redirects that one request may go through.
const MAX_REDIRECTS: usize = 5;

/// Everything that requests share.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) transports: Transports,
    pub(super) network: Arc<NetworkPolicy>,
    pub(super) tokens: Tokens,
    pub(super) observer: Arc<dyn RequestObserver>,
}

/// A request to the API of a repository.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) repository: &'a Repository,
    pub(super) access: &'a Access,
    pub(super) kind: RequestKind,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<&'static str>,
    /// The first byte wanted, where an earlier answer broke off.
    pub(super) from: u64,
    /// What is asked for, for errors.
    pub(super) what: String,
}

impl<'a> Call<'a> {
    /// A GET of `<repository>/<rest>`.
    pub(super) fn get(
        repository: &'a Repository,
        access: &'a Access,
        kind: RequestKind,
        rest: &str,
        what: String,
    ) -> Result<Self, RegistryError> {
        let url = endpoint::url(repository, access, rest)?;
        Ok(Self {
            repository,
            access,
            kind,
            method: Method::GET,
            url,
            accept: None,
            from: 0,
            what,
        })
    }
}

impl Exchange {
    /// Sends a request until it succeeds, fails for good, or has been tried often enough.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let host = call.repository.host();
        if !self.network.allows_registry(host) {
            return Err(RegistryError::NotAllowed { host: host.to_owned() });
        }
        retrying(|| self.with_credentials(call)).await
    }

    /// Tries the credentials that apply, in order; anonymously only where none does.
    async fn with_credentials(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let client = self.transports.client(call.access)?;
        let mut last = None;
        for credentials in call.access.keyring.candidates(call.repository) {
            match self.as_one(&client, call, Some(credentials)).await {
                Err(error @ (RegistryError::Unauthorized { .. } | RegistryError::Denied { .. })) => last = Some(error),
                ended => return ended,
            }
        }
        match last {
            Some(error) => Err(error),
            None => self.as_one(&client, call, None).await,
        }
    }

    /// Sends with the header that worked before, and answers one challenge.
    async fn as_one(
        &self,
        client: &Client,
        call: &Call<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<Response, RegistryError> {
        let anonymous = credentials.is_none();
        let asker = (
            call.access.scope(call.repository),
            credentials.map(Credentials::fingerprint),
        );
        let mut response = self.follow(client, call, self.tokens.get(&asker).as_ref()).await?;
        // Only the registry itself may challenge: a blob store behind a redirect must not learn what it would take.
        if response.status() == StatusCode::UNAUTHORIZED && same_origin(response.url(), &call.url) {
            let Some(challenge) = challenge::of(&response) else {
                return Err(failure::status(
                    &response,
                    &call.what,
                    call.repository.path(),
                    anonymous,
                ));
            };
            let header = self.answer(client, call, &challenge, credentials).await?;
            response = self.follow(client, call, Some(&header)).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                self.tokens.keep(asker, header);
            }
        }
        if response.status().is_success() {
            return Ok(response);
        }
        Err(failure::status(
            &response,
            &call.what,
            call.repository.path(),
            anonymous,
        ))
    }

    /// The header that answers a challenge.
    async fn answer(
        &self,
        client: &Client,
        call: &Call<'_>,
        challenge: &Challenge,
        credentials: Option<&Credentials>,
    ) -> Result<Header, RegistryError> {
        let unauthorized = || RegistryError::Unauthorized {
            host: authority(&call.url),
            repository: call.repository.path().to_owned(),
            credentials: if credentials.is_none() {
                "an anonymous request"
            } else {
                "the credentials of the pull secret"
            },
        };
        match (challenge, credentials) {
            (_, Some(Credentials::RegistryToken(token))) => Ok(Header::bearer(token.expose(), None)),
            (Challenge::Basic, Some(Credentials::Basic { username, password })) => {
                Ok(Header::basic(username, password))
            }
            (Challenge::Basic, _) => Err(unauthorized()),
            (Challenge::Bearer { realm, service }, _) => {
                let realm = token::realm(realm, &call.url).ok_or_else(|| {
                    failure::protocol(&call.url, &call.what, "it names a token server that must not be asked")
                })?;
                self.token(client, call, &realm, service.as_deref(), credentials).await
            }
        }
    }

    async fn token(
        &self,
        client: &Client,
        call: &Call<'_>,
        realm: &Realm,
        service: Option<&str>,
        credentials: Option<&Credentials>,
    ) -> Result<Header, RegistryError> {
        self.check(&realm.url).await?;
        if credentials.is_some() && !realm.trusted {
            let (server, registry) = (authority(&realm.url), authority(&call.url));
            tracing::warn!(
                server,
                registry,
                "the token server is not of the registry's site: credentials are not sent"
            );
        }
        let path = call.repository.path();
        let answered = token::fetch(client, realm, service, path, credentials).await;
        self.observe(RequestKind::Token, &answered);
        let response = answered?;
        if !response.status().is_success() {
            return Err(failure::status(
                &response,
                "token",
                path,
                credentials.is_none() || !realm.trusted,
            ));
        }
        token::read(response).await
    }

    /// Sends, and follows redirects. The header goes only where it was made for.
    async fn follow(
        &self,
        client: &Client,
        call: &Call<'_>,
        header: Option<&Header>,
    ) -> Result<Response, RegistryError> {
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let header = header.filter(|_| same_origin(&url, &call.url)).and_then(Header::value);
            let response = self.once(client, call, &url, header).await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            url = redirected(&response, call)?;
        }
        Err(failure::protocol(&call.url, &call.what, "too many redirects"))
    }

    async fn once(
        &self,
        client: &Client,
        call: &Call<'_>,
        url: &Url,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        self.check(url).await?;
        let mut request = client.request(call.method.clone(), url.clone());
        if let Some(accept) = call.accept {
            request = request.header(ACCEPT, accept);
        }
        if call.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", call.from));
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answered = request.send().await.map_err(|error| failure::transport(url, error));
        self.observe(call.kind, &answered);
        answered
    }

    fn observe(&self, kind: RequestKind, answered: &Result<Response, RegistryError>) {
        let status = answered.as_ref().ok().map(|response| response.status().as_u16());
        tracing::debug!(?kind, status, "registry request");
        self.observer.request(kind, status);
    }

    /// The guard, for what its resolver cannot see: hosts written as addresses, and the API server on loopback.
    async fn check(&self, url: &Url) -> Result<(), RegistryError> {
        let refused = || RegistryError::AddressRefused { host: authority(url) };
        if !self.network.permits_url(url) {
            return Err(refused());
        }
        if self.network.may_be_api_server_on_loopback(url) {
            let (host, port) = (
                url.host_str().unwrap_or_default(),
                url.port_or_known_default().unwrap_or_default(),
            );
            let resolved = tokio::net::lookup_host((host, port)).await;
            if resolved.is_ok_and(|mut found| found.any(|socket| socket.ip().is_loopback())) {
                return Err(refused());
            }
        }
        Ok(())
    }
}

/// Where a redirect leads: never from TLS to plain HTTP, never to another scheme.
fn redirected(response: &Response, call: &Call<'_>) -> Result<Url, RegistryError> {
    let from = response.url();
    let broken = |cause: &str| failure::protocol(&call.url, &call.what, cause);
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| broken("a redirect without a readable location"))?;
    let url = from
        .join(location)
        .map_err(|_| broken("a redirect to something that is no URL"))?;
    match (from.scheme(), url.scheme()) {
        ("https" | "http", "https") | ("http", "http") => {}
        _ => return Err(broken("a redirect away from TLS, or to something that is not HTTP")),
    }
    if url.username().is_empty() && url.password().is_none() {
        Ok(url)
    } else {
        Err(broken("a redirect to a URL with a user name"))
    }
}
