//! From what the HTTP library reports to what the user is told.

use std::error::Error;
use std::io;

use super::guard::RefusedAddress;
use crate::pipeline::ports::RegistryError;

/// Longest text of a cause. Certificates, and with them the texts about them, are written by the other side.
const MAX_CAUSE_CHARACTERS: usize = 200;

/// Why a request to `host` got no answer, or the answer broke off. The library's own text is not used: it holds the
/// URL, and URLs of blob stores are credentials.
pub(super) fn transport(host: &str, error: &reqwest::Error) -> RegistryError {
    let host = host.to_owned();
    if find::<RefusedAddress>(error).is_some() {
        return RegistryError::AddressRefused { host };
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return RegistryError::Tls {
            host,
            cause: plain(&tls.to_string()),
        };
    }
    let cause = if error.is_timeout() {
        "no answer within the time limit".to_owned()
    } else if error.is_connect() {
        find::<io::Error>(error).map_or_else(|| "no connection".to_owned(), |error| plain(&error.to_string()))
    } else {
        "the connection broke before the answer was complete".to_owned()
    };
    RegistryError::Unreachable { host, cause }
}

/// Our own disk failed.
#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
pub(super) fn storage(error: io::Error) -> RegistryError {
    RegistryError::Storage {
        cause: plain(&error.to_string()),
    }
}

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
pub(super) fn plain(text: &str) -> String {
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
