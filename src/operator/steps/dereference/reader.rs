//! Where the objects that a spec names are read.

use std::collections::BTreeMap;
use std::future::Future;

/// Values of a Secret or ConfigMap, by key.
pub type Values = BTreeMap<String, Vec<u8>>;

/// Where named objects are read: an API server, or the files given to `render`. Only the keys in use are read.
pub trait ObjectReader: Send + Sync {
    /// Of a Secret, if it exists: the values of those `keys` that it has.
    fn secret(
        &self,
        namespace: &str,
        name: &str,
        keys: &[&str],
    ) -> impl Future<Output = Result<Option<Values>, ReadError>> + Send;
    /// Of a ConfigMap, if it exists: the values of those `keys` that it has.
    fn config_map(
        &self,
        namespace: &str,
        name: &str,
        keys: &[&str],
    ) -> impl Future<Output = Result<Option<Values>, ReadError>> + Send;
    /// Of a ServiceAccount, if it exists: the names of its image pull secrets.
    fn service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Vec<String>>, ReadError>> + Send;
}

/// Why an object could not be read. Each holds what the API server reported, without the body of its response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The API server refused, which only a change of permissions helps.
    #[error("{0}")]
    Forbid(String),
    /// The response cannot be decoded. Only a change of the object helps.
    #[error("{0}")]
    Decode(String),
    /// There was no response, or an error that may pass.
    #[error("{0}")]
    Temporary(String),
}
