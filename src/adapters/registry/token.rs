//! Tokens: where credentials are taken, and what is got for them.
//!
//! **Security invariant:** a registry chooses the realm, so the realm gets credentials only where it is of the
//! registry's own site, over TLS wherever the registry uses TLS, and without a redirect.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{Client, Response, Url};
use serde::Deserialize;

use super::endpoint::{authority, same_origin};
use super::failure;
use crate::domain::access::{Credentials, Scope, Secret};
use crate::domain::digest::Digest;
use crate::pipeline::ports::RegistryError;

/// Largest answer of a token server, in bytes.
const MAX_TOKEN_BYTES: u64 = 64 << 10;
/// Most headers kept.
const MAX_HEADERS: usize = 1024;
/// Lifetime of a token that states none. Source: distribution, "Token Authentication Specification".
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// A token is not used in its last seconds, and none is trusted to last for days.
const SAFETY: Duration = Duration::from_secs(5);
const MOST_LIFETIME: Duration = Duration::from_hours(1);

/// Who asks: the scope, and which of its credentials.
pub(super) type Asker = (Scope, Option<Digest>);

/// `Authorization` headers that worked, so that the next request need not ask first.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<Asker, Header>>);

#[derive(Debug, Clone)]
pub(super) struct Header {
    value: Secret,
    expires: Option<Instant>,
}

impl Header {
    /// `Basic`, for as long as the registry takes it.
    pub(super) fn basic(username: &str, password: &Secret) -> Self {
        let encoded = STANDARD.encode(format!("{username}:{}", password.expose()));
        Self {
            value: Secret::new(format!("Basic {encoded}")),
            expires: None,
        }
    }

    /// `Bearer`.
    pub(super) fn bearer(token: &str, lifetime: Option<Duration>) -> Self {
        let expires = lifetime.map(|lifetime| Instant::now() + lifetime);
        Self {
            value: Secret::new(format!("Bearer {token}")),
            expires,
        }
    }

    /// The header's value; none where a token holds what no header may.
    pub(super) fn value(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.value.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Tokens {
    pub(super) fn get(&self, asker: &Asker) -> Option<Header> {
        let headers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        headers
            .get(asker)
            .filter(|header| header.expires.is_none_or(|expires| Instant::now() < expires))
            .cloned()
    }

    pub(super) fn keep(&self, asker: Asker, header: Header) {
        let mut headers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if headers.len() >= MAX_HEADERS {
            let now = Instant::now();
            headers.retain(|_, header| header.expires.is_some_and(|expires| now < expires));
        }
        if headers.len() >= MAX_HEADERS {
            headers.clear();
        }
        headers.insert(asker, header);
    }
}

/// A token server that may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Realm {
    /// Its URL.
    pub(super) url: Url,
    /// Whether it may see credentials.
    pub(super) trusted: bool,
}

/// Checks a realm that `registry` named. None where it must not be asked at all.
pub(super) fn realm(text: &str, registry: &Url) -> Option<Realm> {
    let url: Url = text.parse().ok()?;
    let own = same_origin(&url, registry);
    let scheme_fits = url.scheme() == "https" || (url.scheme() == "http" && registry.scheme() == "http");
    let is_name = matches!(url.host(), Some(url::Host::Domain(_)));
    if !scheme_fits || !url.username().is_empty() || url.password().is_some() || !(own || is_name) {
        return None;
    }
    let trusted = own || same_site(url.host_str()?, registry.host_str()?);
    Some(Realm { url, trusted })
}

/// Whether two hosts belong together: `auth.docker.io` and `registry-1.docker.io`, `gitlab.com` and
/// `registry.gitlab.com`. One must lie below the other, or both below a common parent of at least two labels that is no
/// public suffix of the usual kind (`co.uk`, `github.io`); where we cannot tell, they do not belong together.
fn same_site(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('.'), other.trim_end_matches('.'));
    let below = |child: &str, parent: &str| {
        child == parent || child.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
    };
    let registrable = |host: &str| host.contains('.') && !is_shared_suffix(host);
    if (below(one, other) && registrable(other)) || (below(other, one) && registrable(one)) {
        return true;
    }
    let parent = |host: &str| host.split_once('.').map(|(_, parent)| parent.to_owned());
    match (parent(one), parent(other)) {
        (Some(a), Some(b)) => a == b && registrable(&a),
        _ => one == other,
    }
}

/// Suffixes below which strangers live side by side: two-letter country codes with a short second level, and hosts where
/// anyone can have a name.
fn is_shared_suffix(host: &str) -> bool {
    const SHARED: [&str; 14] = [
        "amazonaws.com",
        "azurecr.io",
        "azurewebsites.net",
        "cloudapp.net",
        "cloudfront.net",
        "fly.dev",
        "github.io",
        "gitlab.io",
        "herokuapp.com",
        "ngrok.io",
        "pages.dev",
        "run.app",
        "vercel.app",
        "workers.dev",
    ];
    let labels: Vec<&str> = host.split('.').collect();
    let country = matches!(labels.as_slice(), [second, top] if top.len() == 2 && second.len() <= 3);
    country
        || SHARED
            .iter()
            .any(|shared| host == *shared || host.ends_with(&format!(".{shared}")))
}

#[derive(Deserialize)]
struct TokenReply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Asks a token server for the right to pull from `path`, never for more, whatever scope the registry names.
pub(super) async fn fetch(
    client: &Client,
    realm: &Realm,
    service: Option<&str>,
    path: &str,
    credentials: Option<&Credentials>,
) -> Result<Response, RegistryError> {
    let scope = format!("repository:{path}:pull");
    let credentials = credentials.filter(|_| realm.trusted);
    let request = if let Some(Credentials::IdentityToken(token)) = credentials {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", token.expose());
        form.append_pair("client_id", "policy-operator")
            .append_pair("scope", &scope);
        form.extend_pairs(service.map(|service| ("service", service)));
        let form_type = "application/x-www-form-urlencoded";
        client
            .post(realm.url.clone())
            .header(reqwest::header::CONTENT_TYPE, form_type)
            .body(form.finish())
    } else {
        let mut url = realm.url.clone();
        url.query_pairs_mut()
            .extend_pairs(service.map(|service| ("service", service)))
            .append_pair("scope", &scope);
        match credentials {
            Some(Credentials::Basic { username, password }) => {
                client.get(url).basic_auth(username, Some(password.expose()))
            }
            _ => client.get(url),
        }
    };
    request
        .send()
        .await
        .map_err(|error| failure::transport(&realm.url, error))
}

/// The header that a token server's answer stands for.
pub(super) async fn read(response: Response) -> Result<Header, RegistryError> {
    let url = response.url().clone();
    let bytes = failure::body(response, "token", MAX_TOKEN_BYTES).await?;
    let broken = || RegistryError::Protocol {
        host: authority(&url),
        what: "token".to_owned(),
        cause: "the token server's answer holds no token".to_owned(),
    };
    let reply: TokenReply = serde_json::from_slice(&bytes).map_err(|_| broken())?;
    let token = reply
        .token
        .or(reply.access_token)
        .filter(|token| !token.is_empty())
        .ok_or_else(broken)?;
    let lifetime = reply
        .expires_in
        .map_or(DEFAULT_LIFETIME, Duration::from_secs)
        .min(MOST_LIFETIME);
    let header = Header::bearer(&token, Some(lifetime.saturating_sub(SAFETY)));
    if header.value().is_some() {
        Ok(header)
    } else {
        Err(broken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::docker_hub("https://auth.docker.io/token", "https://registry-1.docker.io/v2/", Some(true))]
    #[case::same_host("https://ghcr.io/token", "https://ghcr.io/v2/", Some(true))]
    #[case::parent("https://gitlab.com/jwt/auth", "https://registry.gitlab.com/v2/", Some(true))]
    #[case::plain_own("http://127.0.0.1:5000/token", "http://127.0.0.1:5000/v2/", Some(true))]
    #[case::plain_name("http://auth.acme.example/token", "http://registry.acme.example/v2/", Some(true))]
    #[case::stranger("https://evil.example/token", "https://registry.acme.example/v2/", Some(false))]
    #[case::look_alike("https://evildocker.io/token", "https://registry-1.docker.io/v2/", Some(false))]
    #[case::country("https://evil.co.uk/token", "https://acme.co.uk/v2/", Some(false))]
    #[case::hosted("https://evil.azurecr.io/token", "https://acme.azurecr.io/v2/", Some(false))]
    #[case::buckets("https://evil.s3.amazonaws.com/t", "https://acme.s3.amazonaws.com/v2/", Some(false))]
    #[case::top_level("https://io/token", "https://ghcr.io/v2/", Some(false))]
    #[case::downgrade("http://ghcr.io/token", "https://ghcr.io/v2/", None)]
    #[case::metadata("https://169.254.169.254/token", "https://ghcr.io/v2/", None)]
    #[case::loopback("https://[::1]/token", "https://ghcr.io/v2/", None)]
    #[case::other_port("http://127.0.0.1:6000/token", "http://127.0.0.1:5000/v2/", None)]
    #[case::userinfo("https://user:pass@ghcr.io/token", "https://ghcr.io/v2/", None)]
    #[case::file("file:///etc/passwd", "https://ghcr.io/v2/", None)]
    #[case::relative("/token", "https://ghcr.io/v2/", None)]
    fn a_realm_gets_credentials_only_on_the_registrys_site(
        #[case] text: &str,
        #[case] registry: &str,
        #[case] trusted: Option<bool>,
    ) {
        assert_eq!(
            realm(text, &registry.parse().unwrap()).map(|realm| realm.trusted),
            trusted
        );
    }

    #[test]
    fn kept_headers_are_bounded_and_expire() {
        let tokens = Tokens::default();
        let asker = |number: usize| {
            let repository = format!("ghcr.io/acme/p{number}").parse::<crate::domain::reference::ImageReference>();
            (
                crate::domain::access::Access::default().scope(repository.unwrap().repository()),
                None,
            )
        };
        for number in 0..MAX_HEADERS + 10 {
            tokens.keep(asker(number), Header::bearer("t", None));
        }
        assert!(tokens.0.lock().unwrap().len() <= MAX_HEADERS);
        tokens.keep(asker(0), Header::bearer("t", Some(Duration::ZERO)));
        assert!(tokens.get(&asker(0)).is_none());
    }
}
