//! Requests to one repository with one access: adds authorization to [`HttpSender`].

use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode, Url};

use super::action::Action;
use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::observer::RequestKind;
use super::realm::Realm;
use super::sender::{HttpSender, RegistryRequest};
use super::token::{self, Authorization, Authorizations};
use super::{Inner, body};
use crate::adapters::network::redirect::same_origin;
use crate::adapters::network::retry;
use crate::domain::access::{AccessKey, Credentials, RegistryAccess};
use crate::domain::reference::Repository;
use crate::pipeline::ports::RegistryError;

const ANONYMOUS: &str = "an anonymous request";
const GIVEN: &str = "the given credentials";
const WITHHELD: &str =
    "an anonymous request (the token server is on another site, so it was not sent the given credentials)";

/// A repository and how it is accessed.
pub(super) struct Session<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) access_key: AccessKey,
    action: Action,
    pub(super) sender: HttpSender,
    candidates: Vec<&'a Credentials>,
    authorizations: &'a Authorizations,
}

/// A response whose body was read. The body is empty unless the status is 200.
pub(super) struct FetchedResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl<'a> Session<'a> {
    /// Nothing is sent yet; fails if the registry may not be used or the TLS settings cannot.
    pub(super) async fn open(
        inner: &'a Inner,
        repository: &'a Repository,
        access: &'a RegistryAccess,
    ) -> Result<Self, RegistryError> {
        if !inner.options.allowed_hosts.allow(repository.host()) {
            let host = repository.host().to_owned();
            return Err(RegistryError::NotAllowed { host });
        }
        let endpoint = Endpoint::new(repository, access.transport.insecure)?;
        let access_key = access.key(repository);
        Ok(Self {
            endpoint,
            access_key,
            action: Action::Pull,
            sender: HttpSender {
                client_name: inner.options.client_name,
                http: inner.transports.client(&access.transport).await?,
                egress: inner.egress.clone(),
                circuit_breakers: inner.circuit_breakers.clone(),
                large_bodies: inner.large_bodies.clone(),
                settings: access.transport.digest(),
                tenant: access.tenant.clone(),
                access_key,
                observer: inner.options.observer.clone(),
            },
            candidates: access.keyring.candidates(repository).collect(),
            authorizations: &inner.authorizations,
        })
    }

    /// A request for `resource` of this repository, such as `:1.0`.
    pub(super) fn request(&self, kind: RequestKind, url: Url, resource: &str) -> RegistryRequest {
        let is_content = matches!(kind, RequestKind::Manifest | RequestKind::Blob);
        RegistryRequest {
            kind,
            host: self.endpoint.host().to_owned(),
            resource: format!("{}{resource}", self.endpoint.path()),
            method: Method::GET,
            url,
            accept: &["application/json"],
            from: 0,
            form: None,
            follows: is_content,
        }
    }

    /// Sends `request` and reads at most `limit` bytes of the response; again if the connection broke meanwhile.
    pub(super) async fn fetch(&self, request: &RegistryRequest, limit: u64) -> Result<FetchedResponse, RegistryError> {
        let mut attempt = 1;
        loop {
            let response = self.send(request).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = match status {
                StatusCode::OK => body::read(&self.sender, request, response, limit).await,
                _ => Ok(Vec::new()),
            };
            match body {
                Ok(body) => return Ok(FetchedResponse { status, headers, body }),
                Err(RegistryError::Unreachable { .. }) if attempt < retry::ATTEMPTS => {
                    tokio::time::sleep(retry::pause(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends `request` with what the registry accepted before, or else finds out what it accepts. The status is
    /// neither 401 nor 403.
    pub(super) async fn send(&self, request: &RegistryRequest) -> Result<Response, RegistryError> {
        let kept = self.authorizations.get(&(self.access_key, self.action)).await;
        let response = self
            .sender
            .send(request, kept.as_ref().map(Authorization::header))
            .await?;
        match self.refusal(request, &response)? {
            None => Ok(response),
            Some(StatusCode::UNAUTHORIZED) => {
                self.authorizations.remove(&(self.access_key, self.action)).await;
                self.log_in(request, response.headers()).await
            }
            Some(_) => {
                self.authorizations.remove(&(self.access_key, self.action)).await;
                Err(self.denied(if kept.is_some() { self.label() } else { ANONYMOUS }))
            }
        }
    }

    /// The status if the registry refuses to answer *us*. Another host that it redirected to must not be given
    /// credentials, whatever it answers.
    fn refusal(&self, request: &RegistryRequest, response: &Response) -> Result<Option<StatusCode>, RegistryError> {
        let status = response.status();
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(None);
        }
        if same_origin(response.url(), self.endpoint.root()) {
            return Ok(Some(status));
        }
        let cause = format!("the host it redirects to answered {}", status.as_u16());
        Err(request.protocol(cause))
    }

    /// Answers the challenge with each of the credentials in turn, or with none if none apply.
    async fn log_in(&self, request: &RegistryRequest, headers: &HeaderMap) -> Result<Response, RegistryError> {
        let Some(challenge) = Challenge::best(headers) else {
            return Err(request.protocol("it requires authentication, and offers neither 'Bearer' nor 'Basic'"));
        };
        let mut candidates: Vec<Option<&Credentials>> = self.candidates.iter().copied().map(Some).collect();
        if candidates.is_empty() {
            candidates.push(None);
        }
        let mut failure = self.unauthorized(self.label());
        for credentials in candidates {
            let (authorization, label) = self.authorization(request, &challenge, credentials).await?;
            let Some(authorization) = authorization else {
                failure = self.unauthorized(label);
                continue;
            };
            let response = self.sender.send(request, Some(authorization.header())).await?;
            failure = match self.refusal(request, &response)? {
                None => {
                    self.authorizations
                        .put((self.access_key, self.action), authorization)
                        .await;
                    return Ok(response);
                }
                Some(StatusCode::FORBIDDEN) => self.denied(label),
                Some(_) => self.unauthorized(label),
            };
        }
        Err(failure)
    }

    /// What to send for `credentials`, if anything, and how messages name it.
    async fn authorization(
        &self,
        request: &RegistryRequest,
        challenge: &Challenge,
        credentials: Option<&Credentials>,
    ) -> Result<(Option<Authorization>, &'static str), RegistryError> {
        if let Some(Credentials::RegistryToken(token)) = credentials {
            return Ok((Authorization::bearer(token, token::FIXED_LIFETIME), GIVEN));
        }
        let (realm, service) = match (challenge, credentials) {
            (Challenge::Basic, Some(Credentials::Basic { username, password })) => {
                return Ok((Authorization::basic(username, password), GIVEN));
            }
            (Challenge::Basic, _) => return Ok((None, self.label())),
            (Challenge::Bearer { realm, service }, _) => (realm, service.as_deref()),
        };
        let realm = Realm::named(self.endpoint.root(), realm)
            .map_err(|refused| refused.into_error(self.endpoint.host(), &request.resource))?;
        let sent = credentials.filter(|_| realm.is_trusted);
        let label = match (credentials, sent) {
            (None, _) => ANONYMOUS,
            (Some(_), None) => WITHHELD,
            (Some(_), Some(_)) => GIVEN,
        };
        let authorization = token::request(&self.sender, &self.endpoint, self.action, &realm, service, sent).await?;
        Ok((authorization, label))
    }

    fn label(&self) -> &'static str {
        if self.candidates.is_empty() { ANONYMOUS } else { GIVEN }
    }

    fn unauthorized(&self, credentials: &'static str) -> RegistryError {
        RegistryError::Unauthorized {
            host: self.endpoint.host().to_owned(),
            repository: self.endpoint.path().to_owned(),
            credentials,
        }
    }

    fn denied(&self, credentials: &'static str) -> RegistryError {
        RegistryError::Denied {
            host: self.endpoint.host().to_owned(),
            repository: self.endpoint.path().to_owned(),
            credentials,
        }
    }
}
