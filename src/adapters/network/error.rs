//! Why a connection failed.

use std::error::Error;
use std::io;

/// Longest text of a cause. Certificates, and with them the texts about them, are written by the other side.
const MAX_CAUSE_CHARACTERS: usize = 200;

/// Why a host sent no response. `Clone`, because one result serves everyone who waits for it.
///
/// Messages name the host. They never hold a URL: URLs of blob stores are credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The host leads to an address that is refused. The text is the same for every address.
    #[error("host '{host}' leads to an address that is refused")]
    AddressRefused {
        /// The host.
        host: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with '{host}' failed: {cause}")]
    Tls {
        /// The host.
        host: String,
        /// What the TLS library reported.
        cause: String,
    },
    /// No connection, or one that broke.
    #[error("'{host}' cannot be reached: {cause}")]
    Unreachable {
        /// The host.
        host: String,
        /// What the network reported, without URLs.
        cause: String,
    },
    /// Too many lookups of names are under way for the tenant: the host was not asked for anything.
    #[error("'{host}' cannot be reached: too many other names are being looked up, and do not resolve")]
    TooManyLookups {
        /// The host.
        host: String,
    },
    /// The certificates or the key that were given cannot be used.
    #[error("the TLS settings cannot be used: {cause}")]
    TransportSettings {
        /// What is wrong with them.
        cause: String,
    },
    /// The system has no certificate authorities.
    #[error("this system has no certificate authorities, so no TLS certificate can be checked")]
    MissingSystemCertificates,
}

impl NetworkError {
    /// `host` sent no response in time.
    pub(crate) fn timed_out(host: &str) -> Self {
        Self::Unreachable {
            host: host.to_owned(),
            cause: "no response within the time limit".to_owned(),
        }
    }

    /// Why a request to `host` got no response, or the response broke off. The library's own text is not used: it holds the
    /// URL.
    pub(crate) fn from_request(host: &str, error: &reqwest::Error) -> Self {
        let host = host.to_owned();
        if find::<RefusedAddress>(error).is_some() {
            return Self::AddressRefused { host };
        }
        if find::<TooManyLookups>(error).is_some() {
            return Self::TooManyLookups { host };
        }
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::Tls {
                host,
                cause: plain(&tls.to_string()),
            };
        }
        let cause = if error.is_timeout() {
            return Self::timed_out(&host);
        } else if error.is_connect() {
            find::<io::Error>(error).map_or_else(|| "no connection".to_owned(), |error| plain(&error.to_string()))
        } else {
            "the connection broke before the response was complete".to_owned()
        };
        Self::Unreachable { host, cause }
    }
}

/// All addresses of a name are refused. Nothing in it tells which they are.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no address that may be reached")]
pub(crate) struct RefusedAddress;

/// The share of a tenant in lookups of names is used up.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("too many lookups")]
pub(crate) struct TooManyLookups;

/// The innermost error of type `T` in the chain. I/O errors hide the error they wrap from [`Error::source`].
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut found = None;
    let mut next = Some(error);
    while let Some(error) = next {
        found = error.downcast_ref::<T>().or(found);
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    found
}

/// One short line.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(MAX_CAUSE_CHARACTERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_errors_that_io_errors_wrap() {
        let inner = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let outer = io::Error::other(inner);
        assert_eq!(find::<rustls::Error>(&outer), Some(&rustls::Error::DecryptError));
        assert!(find::<RefusedAddress>(&outer).is_none());
    }

    #[test]
    fn causes_are_one_short_line() {
        let text = plain(&format!("a\nb\u{1b}[31m{}", "x".repeat(1000)));
        assert!(text.starts_with("a b [31mx") && text.chars().count() == MAX_CAUSE_CHARACTERS);
    }
}
