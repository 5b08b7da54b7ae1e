//! One repository, asked in one way: adds to [`Wire`] what the registry wants to see before it answers.

use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode, Url};

use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::observer::RequestKind;
use super::realm::Realm;
use super::redirect::same_origin;
use super::token::{self, Grant, Grants};
use super::wire::{Ask, Wire};
use super::{Inner, body, retry};
use crate::domain::access::{Access, Credentials, Scope};
use crate::domain::reference::Repository;
use crate::pipeline::ports::RegistryError;

const ANONYMOUS: &str = "an anonymous request";
const PULL_SECRET: &str = "the credentials of the pull secret";
const WITHHELD: &str =
    "an anonymous request (the token server is on another site, so it was not sent the credentials of the pull secret)";

/// A repository and how it is asked.
pub(super) struct Session<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) scope: Scope,
    pub(super) wire: Wire,
    candidates: Vec<&'a Credentials>,
    grants: &'a Grants,
}

/// An answer whose body was read. The body is empty unless the status is 200.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl<'a> Session<'a> {
    /// Nothing is sent yet; fails where the registry may not be used or the TLS settings cannot.
    pub(super) async fn open(
        inner: &'a Inner,
        repository: &'a Repository,
        access: &'a Access,
    ) -> Result<Self, RegistryError> {
        inner.network.check_registry(repository.host())?;
        let endpoint = Endpoint::new(repository, access.insecure)?;
        Ok(Self {
            endpoint,
            scope: access.scope(repository),
            wire: Wire {
                http: inner.transports.client(access).await?,
                network: inner.network.clone(),
                observer: inner.options.observer.clone(),
            },
            candidates: access.keyring.candidates(repository).collect(),
            grants: &inner.grants,
        })
    }

    /// A question for `what` of this repository, such as `:1.0`.
    pub(super) fn ask(&self, kind: RequestKind, url: Url, what: &str) -> Ask {
        let is_content = matches!(kind, RequestKind::Manifest | RequestKind::Blob);
        Ask {
            kind,
            host: self.endpoint.host().to_owned(),
            what: format!("{}{what}", self.endpoint.path()),
            method: Method::GET,
            url,
            accept: "application/json",
            from: 0,
            form: None,
            follows: is_content,
        }
    }

    /// Sends `ask` and reads at most `limit` bytes of the answer; once more where the connection broke meanwhile.
    pub(super) async fn fetch(&self, ask: &Ask, limit: u64) -> Result<Answer, RegistryError> {
        let mut attempt = 1;
        loop {
            let response = self.send(ask).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = match status {
                StatusCode::OK => body::read(ask, response, limit).await,
                _ => Ok(Vec::new()),
            };
            match body {
                Ok(body) => return Ok(Answer { status, headers, body }),
                Err(RegistryError::Unreachable { .. }) if attempt < retry::ATTEMPTS => {
                    tokio::time::sleep(retry::pause(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends `ask` with what the registry accepted before, or else finds out what it accepts. The answer's status is
    /// neither 401 nor 403.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Response, RegistryError> {
        let kept = self.grants.get(&self.scope).await;
        let response = self.wire.send(ask, kept.as_ref().map(Grant::header)).await?;
        match self.refusal(ask, &response)? {
            None => Ok(response),
            Some(StatusCode::UNAUTHORIZED) => {
                self.grants.forget(&self.scope).await;
                self.log_in(ask, response.headers()).await
            }
            Some(_) => {
                self.grants.forget(&self.scope).await;
                Err(self.denied(if kept.is_some() { self.label() } else { ANONYMOUS }))
            }
        }
    }

    /// The status where the registry refuses to answer *us*. Another host that it redirected to must not be given
    /// credentials, however much it asks.
    fn refusal(&self, ask: &Ask, response: &Response) -> Result<Option<StatusCode>, RegistryError> {
        let status = response.status();
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(None);
        }
        if same_origin(response.url(), self.endpoint.root()) {
            return Ok(Some(status));
        }
        let cause = format!("the host it redirects to answered {}", status.as_u16());
        Err(ask.protocol(cause))
    }

    /// Answers the challenge with each of the credentials in turn, or with none where none apply.
    async fn log_in(&self, ask: &Ask, headers: &HeaderMap) -> Result<Response, RegistryError> {
        let Some(challenge) = Challenge::best(headers) else {
            return Err(ask.protocol("it asks to log in, and names neither 'Bearer' nor 'Basic'"));
        };
        let mut candidates: Vec<Option<&Credentials>> = self.candidates.iter().copied().map(Some).collect();
        if candidates.is_empty() {
            candidates.push(None);
        }
        let mut failure = self.unauthorized(self.label());
        for credentials in candidates {
            let (grant, label) = self.grant(ask, &challenge, credentials).await?;
            let Some(grant) = grant else {
                failure = self.unauthorized(label);
                continue;
            };
            let response = self.wire.send(ask, Some(grant.header())).await?;
            failure = match self.refusal(ask, &response)? {
                None => {
                    self.grants.keep(self.scope, grant).await;
                    return Ok(response);
                }
                Some(StatusCode::FORBIDDEN) => self.denied(label),
                Some(_) => self.unauthorized(label),
            };
        }
        Err(failure)
    }

    /// What to send for `credentials`, if anything, and how messages name it.
    async fn grant(
        &self,
        ask: &Ask,
        challenge: &Challenge,
        credentials: Option<&Credentials>,
    ) -> Result<(Option<Grant>, &'static str), RegistryError> {
        if let Some(Credentials::RegistryToken(token)) = credentials {
            return Ok((Grant::bearer(token, token::FIXED_LIFETIME), PULL_SECRET));
        }
        let (realm, service) = match (challenge, credentials) {
            (Challenge::Basic, Some(Credentials::Basic { username, password })) => {
                return Ok((Grant::basic(username, password), PULL_SECRET));
            }
            (Challenge::Basic, _) => return Ok((None, self.label())),
            (Challenge::Bearer { realm, service }, _) => (realm, service.as_deref()),
        };
        let realm = Realm::named(self.endpoint.root(), realm)
            .map_err(|refused| refused.into_error(self.endpoint.host(), &ask.what))?;
        let sent = credentials.filter(|_| realm.is_trusted);
        let label = match (credentials, sent) {
            (None, _) => ANONYMOUS,
            (Some(_), None) => WITHHELD,
            (Some(_), Some(_)) => PULL_SECRET,
        };
        let grant = token::request(&self.wire, &self.endpoint, &realm, service, sent).await?;
        Ok((grant, label))
    }

    fn label(&self) -> &'static str {
        if self.candidates.is_empty() {
            ANONYMOUS
        } else {
            PULL_SECRET
        }
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
