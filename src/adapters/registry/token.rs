//! Tokens: requesting one from a token server, and caching it for its lifetime.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moka::future::Cache;
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};

use super::action::Action;
use super::body;
use super::endpoint::Endpoint;
use super::observer::RequestKind;
use super::realm::Realm;
use super::sender::{HttpSender, RegistryRequest};
use crate::adapters::network::egress::host_of;
use crate::domain::access::{AccessKey, Credentials, Secret};
use crate::pipeline::ports::RegistryError;

/// Largest response of a token server, in bytes.
const MAX_TOKEN_REPLY_BYTES: u64 = 64 << 10;
/// Lifetime of a token that does not say. Source: distribution documentation, "Token authentication".
const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);
const MAX_LIFETIME: Duration = Duration::from_hours(1);
/// How long what does not expire is cached.
pub(super) const FIXED_LIFETIME: Duration = MAX_LIFETIME;
/// Most bytes of authorizations kept: some thousand real ones. A token server may make each as large as its response.
const MAX_AUTHORIZATIONS_BYTES: u64 = 4 << 20;
/// What an authorization takes beside its text, about.
const AUTHORIZATION_BYTES: u32 = 512;

/// Something that a registry accepted, or will.
#[derive(Clone)]
pub(super) struct Authorization {
    header: HeaderValue,
    good_until: Instant,
}

impl Authorization {
    /// The value of `Authorization`; marked as sensitive, so that nothing prints it.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// About how many bytes it takes in memory.
    fn memory_bytes(&self) -> u32 {
        u32::try_from(self.header.len()).map_or(u32::MAX, |text| text.saturating_add(AUTHORIZATION_BYTES))
    }

    fn new(scheme: &str, text: &str, lifetime: Duration) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("{scheme} {text}")).ok()?;
        header.set_sensitive(true);
        // Renewed a little before it expires, so that it does not expire on its way.
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

/// What registries accepted, by access key and action: other credentials, or another repository, have another key.
pub(super) struct Authorizations {
    kept: Cache<(AccessKey, Action), Authorization>,
}

impl Default for Authorizations {
    fn default() -> Self {
        let kept = Cache::builder()
            .max_capacity(MAX_AUTHORIZATIONS_BYTES)
            .weigher(|_, authorization: &Authorization| authorization.memory_bytes())
            .time_to_live(MAX_LIFETIME)
            .build();
        Self { kept }
    }
}

impl Authorizations {
    pub(super) async fn get(&self, key: &(AccessKey, Action)) -> Option<Authorization> {
        let authorization = self.kept.get(key).await?;
        (authorization.good_until > Instant::now()).then_some(authorization)
    }

    pub(super) async fn put(&self, key: (AccessKey, Action), authorization: Authorization) {
        self.kept.insert(key, authorization).await;
    }

    pub(super) async fn remove(&self, key: &(AccessKey, Action)) {
        self.kept.invalidate(key).await;
    }
}

/// Not `Debug`, because it holds a token.
#[derive(serde::Deserialize)]
struct Reply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Requests a token to pull from the endpoint's repository. `None` if the token server does not accept the
/// credentials, or gives none to anonymous clients.
pub(super) async fn request(
    sender: &HttpSender,
    endpoint: &Endpoint,
    action: Action,
    realm: &Realm,
    service: Option<&str>,
    credentials: Option<&Credentials>,
) -> Result<Option<Authorization>, RegistryError> {
    let request = token_request(sender.client_name, endpoint, action, realm, service, credentials);
    let authorization = match credentials {
        Some(Credentials::Basic { username, password }) => Authorization::basic(username, password),
        _ => None,
    };
    let response = sender
        .send(&request, authorization.as_ref().map(Authorization::header))
        .await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
        StatusCode::NOT_FOUND => return Err(request.protocol("status 404")),
        status => return Err(request.unexpected(status)),
    }
    let bytes = body::read(sender, &request, response, MAX_TOKEN_REPLY_BYTES).await?;
    // The error of the parser would quote the body.
    let reply: Reply = serde_json::from_slice(&bytes).map_err(|_| request.protocol("the token is not in JSON"))?;
    let lifetime = reply.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
    let token = reply.token.or(reply.access_token);
    let token = token.filter(|token| !token.is_empty()).map(Secret::new);
    let authorization = token.and_then(|token| Authorization::bearer(&token, lifetime));
    authorization
        .map(Some)
        .ok_or_else(|| request.protocol("a response without a token"))
}

fn token_request(
    client_name: &str,
    endpoint: &Endpoint,
    action: Action,
    realm: &Realm,
    service: Option<&str>,
    credentials: Option<&Credentials>,
) -> RegistryRequest {
    let scope = endpoint.token_scope(action);
    let mut parameters = vec![("scope", scope.as_str())];
    parameters.extend(service.map(|service| ("service", service)));
    let mut request = RegistryRequest {
        kind: RequestKind::Token,
        host: host_of(&realm.url),
        resource: format!("a token for {scope}"),
        method: Method::GET,
        url: realm.url.clone(),
        accept: &["application/json"],
        from: 0,
        form: None,
        follows: false,
    };
    if let Some(Credentials::IdentityToken(token)) = credentials {
        // Source: distribution documentation, "OAuth2 token authentication".
        parameters.push(("grant_type", "refresh_token"));
        parameters.push(("client_id", client_name));
        parameters.push(("refresh_token", token.expose()));
        request.method = Method::POST;
        let mut form = realm.url.clone();
        form.set_query(None);
        form.query_pairs_mut().extend_pairs(parameters);
        request.form = form.query().map(str::to_owned);
    } else {
        request.url.query_pairs_mut().extend_pairs(parameters);
    }
    request
}
