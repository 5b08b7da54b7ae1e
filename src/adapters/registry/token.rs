//! Tokens: asking a token server for one, and keeping it for its lifetime.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moka::future::Cache;
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};

use super::body;
use super::endpoint::Endpoint;
use super::guard::host_of;
use super::observer::RequestKind;
use super::realm::Realm;
use super::wire::{Ask, Wire};
use crate::domain::access::{Credentials, Scope, Secret};
use crate::pipeline::ports::RegistryError;

/// Largest answer of a token server, in bytes.
const MAX_TOKEN_REPLY_BYTES: u64 = 64 << 10;
/// Lifetime of a token that does not say. Source: distribution documentation, "Token authentication".
const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);
const MAX_LIFETIME: Duration = Duration::from_hours(1);
/// How long what does not expire is sent without being asked for again.
pub(super) const FIXED_LIFETIME: Duration = MAX_LIFETIME;
/// Most grants kept.
const MAX_GRANTS: u64 = 1024;

/// Something that a registry accepted, or will.
#[derive(Clone)]
pub(super) struct Grant {
    header: HeaderValue,
    good_until: Instant,
}

impl Grant {
    /// The value of `Authorization`; marked as sensitive, so that nothing prints it.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    fn new(scheme: &str, text: &str, lifetime: Duration) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("{scheme} {text}")).ok()?;
        header.set_sensitive(true);
        // Asked for a little before it ends, so that it does not end on its way.
        let good_until = Instant::now() + lifetime.min(MAX_LIFETIME).mul_f64(0.9);
        Some(Self { header, good_until })
    }

    /// A user name and a password.
    pub(super) fn basic(username: &str, password: &Secret) -> Option<Self> {
        let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
        Self::new("Basic", &pair, FIXED_LIFETIME)
    }

    /// A token that is sent as it is.
    pub(super) fn bearer(token: &Secret, lifetime: Duration) -> Option<Self> {
        Self::new("Bearer", token.expose(), lifetime)
    }
}

/// Grants by scope: whoever asks with other credentials, or for another repository, has another scope.
pub(super) struct Grants {
    kept: Cache<Scope, Grant>,
}

impl Default for Grants {
    fn default() -> Self {
        let kept = Cache::builder()
            .max_capacity(MAX_GRANTS)
            .time_to_live(MAX_LIFETIME)
            .build();
        Self { kept }
    }
}

impl Grants {
    pub(super) async fn get(&self, scope: &Scope) -> Option<Grant> {
        let grant = self.kept.get(scope).await?;
        (grant.good_until > Instant::now()).then_some(grant)
    }

    pub(super) async fn keep(&self, scope: Scope, grant: Grant) {
        self.kept.insert(scope, grant).await;
    }

    pub(super) async fn forget(&self, scope: &Scope) {
        self.kept.invalidate(scope).await;
    }
}

/// Not `Debug`, because it holds a token.
#[derive(serde::Deserialize)]
struct Reply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Asks a token server for a token to pull from the endpoint's repository. None where it does not accept the
/// credentials, or gives none to those without.
pub(super) async fn request(
    wire: &Wire,
    endpoint: &Endpoint,
    realm: &Realm,
    service: Option<&str>,
    credentials: Option<&Credentials>,
) -> Result<Option<Grant>, RegistryError> {
    let ask = ask(endpoint, realm, service, credentials);
    let authorization = match credentials {
        Some(Credentials::Basic { username, password }) => Grant::basic(username, password),
        _ => None,
    };
    let response = wire.send(&ask, authorization.as_ref().map(Grant::header)).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
        StatusCode::NOT_FOUND => return Err(ask.protocol("status 404")),
        status => return Err(ask.unexpected(status)),
    }
    let bytes = body::read(&ask, response, MAX_TOKEN_REPLY_BYTES).await?;
    // The error of the parser would quote the body.
    let reply: Reply = serde_json::from_slice(&bytes).map_err(|_| ask.protocol("the token is not in JSON"))?;
    let lifetime = reply.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    let token = reply.token.or(reply.access_token);
    let token = token.filter(|token| !token.is_empty()).map(Secret::new);
    let grant = token.and_then(|token| Grant::bearer(&token, lifetime));
    grant.map(Some).ok_or_else(|| ask.protocol("an answer without a token"))
}

fn ask(endpoint: &Endpoint, realm: &Realm, service: Option<&str>, credentials: Option<&Credentials>) -> Ask {
    let scope = endpoint.token_scope();
    let mut parameters = vec![("scope", scope.as_str())];
    parameters.extend(service.map(|service| ("service", service)));
    let mut ask = Ask {
        kind: RequestKind::Token,
        host: host_of(&realm.url),
        what: format!("a token for {scope}"),
        method: Method::GET,
        url: realm.url.clone(),
        accept: "application/json",
        from: 0,
        form: None,
        follows: false,
    };
    if let Some(Credentials::IdentityToken(token)) = credentials {
        // Source: distribution documentation, "OAuth2 token authentication".
        parameters.push(("grant_type", "refresh_token"));
        parameters.push(("client_id", "policy-operator"));
        parameters.push(("refresh_token", token.expose()));
        ask.method = Method::POST;
        let mut form = realm.url.clone();
        form.set_query(None);
        form.query_pairs_mut().extend_pairs(parameters);
        ask.form = form.query().map(str::to_owned);
    } else {
        ask.url.query_pairs_mut().extend_pairs(parameters);
    }
    ask
}
