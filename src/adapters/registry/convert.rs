//! From errors of the network and the disk to errors of the port.

use std::io;

use super::sender::RegistryRequest;
use super::store::ReserveError;
use crate::adapters::network::NetworkError;
use crate::adapters::network::error::plain;
use crate::pipeline::ports::RegistryError;

impl From<NetworkError> for RegistryError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::AddressRefused { host } => Self::AddressRefused { host },
            NetworkError::Tls { host, cause } => Self::Tls { host, cause },
            NetworkError::Unreachable { host, cause } => Self::Unreachable { host, cause },
            NetworkError::TooManyLookups { ref host } => Self::Unreachable {
                host: host.clone(),
                cause: "too many other names are being looked up, and do not resolve".to_owned(),
            },
            NetworkError::TransportSettings { cause } => Self::TransportSettings { cause },
            NetworkError::MissingSystemCertificates => Self::MissingSystemCertificates,
        }
    }
}

/// Our own disk failed.
#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
pub(super) fn storage(error: io::Error) -> RegistryError {
    RegistryError::Storage {
        cause: plain(&error.to_string()),
    }
}

/// There is no room for the requested blob.
pub(super) fn reserve(error: ReserveError, request: &RegistryRequest) -> RegistryError {
    match error {
        ReserveError::LimitSize { capacity } => request.too_large(capacity),
        ReserveError::Full => storage(io::Error::other(error)),
        ReserveError::Create(error) => storage(error),
    }
}
