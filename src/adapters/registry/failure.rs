//! From what the HTTP library says to what a registry's user needs to know.

use std::error::Error;

use reqwest::{Response, StatusCode, Url};

use super::endpoint::authority;
use super::guard::Refused;
use super::retry::retry_after;
use crate::pipeline::ports::RegistryError;

/// An error without an answer. URLs are left out: they may carry a signature in their query.
pub(super) fn transport(url: &Url, error: reqwest::Error) -> RegistryError {
    let host = authority(url);
    let error = error.without_url();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    let mut last = String::new();
    while let Some(current) = cause {
        if current.is::<Refused>() {
            return RegistryError::AddressRefused { host };
        }
        // rustls' error is often wrapped in an io::Error, whose `source` passes it over.
        let inner = current
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        let tls = current
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if let Some(tls) = tls {
            return RegistryError::Tls {
                host,
                cause: tls.to_string(),
            };
        }
        last = current.to_string();
        cause = current.source();
    }
    let cause = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        last
    };
    RegistryError::Unreachable {
        host,
        cause: cause.chars().take(200).collect(),
    }
}

/// An answer that is no success. Its body is not read: it is the registry's text, not ours.
pub(super) fn status(response: &Response, what: &str, repository: &str, anonymous: bool) -> RegistryError {
    let host = authority(response.url());
    let what = what.to_owned();
    let credentials = if anonymous {
        "an anonymous request"
    } else {
        "the credentials of the pull secret"
    };
    let repository = repository.to_owned();
    match response.status() {
        StatusCode::UNAUTHORIZED => RegistryError::Unauthorized {
            host,
            repository,
            credentials,
        },
        StatusCode::FORBIDDEN => RegistryError::Denied {
            host,
            repository,
            credentials,
        },
        StatusCode::NOT_FOUND => RegistryError::NotFound { host, what },
        StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited {
            host,
            wait: retry_after(response).unwrap_or(super::retry::DEFAULT_WAIT),
        },
        status if status.is_server_error() => match retry_after(response) {
            Some(wait) if status == StatusCode::SERVICE_UNAVAILABLE => RegistryError::RateLimited { host, wait },
            _ => RegistryError::Unavailable {
                host,
                what,
                status: status.as_u16(),
            },
        },
        status => RegistryError::Protocol {
            host,
            what,
            cause: format!("unexpected status {}", status.as_u16()),
        },
    }
}

/// An answer that breaks the protocol.
pub(super) fn protocol(url: &Url, what: &str, cause: impl Into<String>) -> RegistryError {
    RegistryError::Protocol {
        host: authority(url),
        what: what.to_owned(),
        cause: cause.into(),
    }
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn body(mut response: Response, what: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let url = response.url().clone();
    let too_large = || RegistryError::TooLarge {
        host: authority(&url),
        what: what.to_owned(),
        limit,
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(&url, error))? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
