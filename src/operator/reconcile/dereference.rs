//! Fetches what the spec names.
//!
//! Everything is read in the object's own namespace and by name: no reference has a namespace, and no Secret is ever
//! listed or watched.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use crate::operator::api::grammar::is_object_name;
use crate::operator::api::spec::{AuthorityCertificates, KeyReference, KeySource, PolicyImageSpec};
use crate::pipeline::reason::{Classify, Disposition, Reason};

/// Most bytes that are read from one key.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Most bytes of all values that one object refers to, those of its ServiceAccount included. Each run holds them all in
/// memory, so fifty values of the largest size would be fifty times as much.
pub const MAX_REFERENCE_BYTES: usize = 2 << 20;

/// Most pull secrets of one object, those of its ServiceAccount included: an API server does not limit the latter.
pub const MAX_PULL_SECRETS: usize = 32;

/// How soon an absent reference is looked up again.
const ABSENT_RETRY: Duration = Duration::from_secs(30);

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
    Answer(String),
}

/// The values that the spec refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// `.dockerconfigjson` of each pull secret, in order, with the Secret's name.
    pub pull_secrets: Vec<(String, Vec<u8>)>,
    /// The PEM text of `tls.caRef`.
    pub authority_certificates: Option<String>,
    /// `tls.crt` and `tls.key` of `tls.certSecretRef`.
    pub client_certificate: Option<(String, String)>,
    /// The PEM text of each authority's keys, by the authority's name.
    pub keys: BTreeMap<String, String>,
}

/// Why something that the spec names cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DereferenceError {
    /// The text cannot be the name of an object, and could lead out of the namespace.
    #[error("{kind} '{name}' is not the name of an object in this namespace; correct '{field}'")]
    Name {
        /// Secret, ConfigMap or ServiceAccount.
        kind: &'static str,
        /// What is written, cut.
        name: String,
        /// The field that names it.
        field: &'static str,
    },
    /// Over [`MAX_PULL_SECRETS`].
    #[error(
        "{found} pull secrets, and at most {MAX_PULL_SECRETS} are tried; shorten 'spec.imagePullSecrets' or the imagePullSecrets of ServiceAccount 'spec.serviceAccountName'"
    )]
    CountPullSecrets {
        /// How many are named.
        found: usize,
    },
    /// It is not there.
    #[error("{kind} '{name}' does not exist in this namespace; '{field}' names it")]
    FindObject {
        /// Secret, ConfigMap or ServiceAccount.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The field that names it.
        field: &'static str,
    },
    /// It has no such key.
    #[error("{kind} '{name}' has no key '{key}'; '{field}' names it")]
    FindKey {
        /// Secret or ConfigMap.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
        /// The field that names it.
        field: &'static str,
    },
    /// The value is not text, or too large.
    #[error("key '{key}' of {kind} '{name}' is not UTF-8 text of at most 1 MiB")]
    ReadText {
        /// Secret or ConfigMap.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// Over [`MAX_REFERENCE_BYTES`].
    #[error(
        "the pull secrets, certificates and keys that the spec names have more than 2 MiB together; name fewer, or shorter ones"
    )]
    LimitBytes,
    /// It could not be read.
    #[error("{kind} '{name}' cannot be read: {source}")]
    Read {
        /// Secret, ConfigMap or ServiceAccount.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What the API server said.
        source: ReadError,
    },
}

impl Classify for DereferenceError {
    fn reason(&self) -> Reason {
        match self {
            Self::FindObject { .. } | Self::FindKey { .. } => Reason::ReferenceNotFound,
            Self::Name { .. }
            | Self::CountPullSecrets { .. }
            | Self::ReadText { .. }
            | Self::LimitBytes
            | Self::Read {
                source: ReadError::Decode(_),
                ..
            } => Reason::ReferenceInvalid,
            Self::Read { .. } => Reason::KubernetesApiFailed,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::FindObject { .. } | Self::FindKey { .. } => Disposition::WaitFor(ABSENT_RETRY),
            Self::Name { .. } | Self::CountPullSecrets { .. } | Self::ReadText { .. } | Self::LimitBytes => {
                Disposition::Stalled
            }
            Self::Read { source, .. } => match source {
                ReadError::Forbid(_) | ReadError::Decode(_) => Disposition::Stalled,
                ReadError::Answer(_) => Disposition::Retry,
            },
        }
    }
}

/// Fetches everything that `spec` names, in `namespace`.
///
/// # Errors
/// [`DereferenceError`] for the first thing that cannot be used.
pub async fn dereference<O: ObjectReader>(
    objects: &O,
    namespace: &str,
    spec: &PolicyImageSpec,
) -> Result<References, DereferenceError> {
    let mut reader = Reader {
        objects,
        namespace,
        bytes_left: MAX_REFERENCE_BYTES,
    };
    let mut references = References {
        pull_secrets: reader.pull_secrets(spec).await?,
        ..References::default()
    };
    if let Some(tls) = &spec.tls {
        if let Some(AuthorityCertificates {
            secret_ref,
            config_map_ref,
        }) = &tls.ca_ref
        {
            let text = reader
                .either(secret_ref.as_ref(), config_map_ref.as_ref(), "spec.tls.caRef")
                .await?;
            references.authority_certificates = text;
        }
        if let Some(certificate) = &tls.cert_secret_ref {
            let field = "spec.tls.certSecretRef";
            let name = &certificate.name;
            let mut values = reader.secret(name, &["tls.crt", "tls.key"], field).await?;
            let mut take = |key| text("Secret", name, key, values.take(key)?);
            references.client_certificate = Some((take("tls.crt")?, take("tls.key")?));
        }
    }
    for authority in spec.verify.iter().flat_map(|verify| &verify.authorities) {
        let KeySource {
            data,
            secret_ref,
            config_map_ref,
        } = &authority.key;
        let field = "spec.verify.authorities.key";
        let text = match data {
            Some(data) => Some(data.clone()),
            None => {
                reader
                    .either(secret_ref.as_ref(), config_map_ref.as_ref(), field)
                    .await?
            }
        };
        references.keys.insert(authority.name.clone(), text.unwrap_or_default());
    }
    Ok(references)
}

struct Reader<'a, O> {
    objects: &'a O,
    namespace: &'a str,
    /// What is left of [`MAX_REFERENCE_BYTES`].
    bytes_left: usize,
}

impl<O: ObjectReader> Reader<'_, O> {
    async fn pull_secrets(&mut self, spec: &PolicyImageSpec) -> Result<Vec<(String, Vec<u8>)>, DereferenceError> {
        let mut named: Vec<(String, &'static str)> = spec
            .image_pull_secrets
            .iter()
            .map(|secret| (secret.name.clone(), "spec.imagePullSecrets"))
            .collect();
        if let Some(account) = &spec.service_account_name {
            let field = "spec.serviceAccountName";
            check_name("ServiceAccount", account, field)?;
            let found = self.objects.service_account(self.namespace, account).await;
            let found = existing(found, "ServiceAccount", account, field)?;
            named.extend(found.into_iter().map(|name| (name, field)));
        }
        if named.len() > MAX_PULL_SECRETS {
            return Err(DereferenceError::CountPullSecrets { found: named.len() });
        }
        let mut values = Vec::with_capacity(named.len());
        for (name, field) in named {
            let key = ".dockerconfigjson";
            let value = self.secret(&name, &[key], field).await?.take(key)?;
            values.push((name, value));
        }
        Ok(values)
    }

    async fn secret<'a>(
        &mut self,
        name: &'a str,
        keys: &[&str],
        field: &'static str,
    ) -> Result<Found<'a>, DereferenceError> {
        let kind = "Secret";
        check_name(kind, name, field)?;
        let found = self.objects.secret(self.namespace, name, keys).await;
        let values = existing(found, kind, name, field)?;
        self.spend(&values)?;
        Ok(Found {
            kind,
            name,
            field,
            values,
        })
    }

    async fn config_map<'a>(
        &mut self,
        name: &'a str,
        keys: &[&str],
        field: &'static str,
    ) -> Result<Found<'a>, DereferenceError> {
        let kind = "ConfigMap";
        check_name(kind, name, field)?;
        let found = self.objects.config_map(self.namespace, name, keys).await;
        let values = existing(found, kind, name, field)?;
        self.spend(&values)?;
        Ok(Found {
            kind,
            name,
            field,
            values,
        })
    }

    fn spend(&mut self, values: &Values) -> Result<(), DereferenceError> {
        let bytes = values.values().map(Vec::len).sum();
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or(DereferenceError::LimitBytes)?;
        Ok(())
    }

    async fn either(
        &mut self,
        secret: Option<&KeyReference>,
        config_map: Option<&KeyReference>,
        field: &'static str,
    ) -> Result<Option<String>, DereferenceError> {
        if let Some(KeyReference { name, key }) = secret {
            let value = self.secret(name, &[key], field).await?.take(key)?;
            return text("Secret", name, key, value).map(Some);
        }
        let Some(KeyReference { name, key }) = config_map else {
            return Ok(None);
        };
        let value = self.config_map(name, &[key], field).await?.take(key)?;
        text("ConfigMap", name, key, value).map(Some)
    }
}

/// Values that were read, and where.
struct Found<'a> {
    kind: &'static str,
    name: &'a str,
    field: &'static str,
    values: Values,
}

impl Found<'_> {
    fn take(&mut self, key: &str) -> Result<Vec<u8>, DereferenceError> {
        self.values.remove(key).ok_or_else(|| DereferenceError::FindKey {
            kind: self.kind,
            name: self.name.to_owned(),
            key: key.to_owned(),
            field: self.field,
        })
    }
}

fn check_name(kind: &'static str, name: &str, field: &'static str) -> Result<(), DereferenceError> {
    if is_object_name(name) {
        return Ok(());
    }
    Err(DereferenceError::Name {
        kind,
        name: name.chars().take(80).collect(),
        field,
    })
}

fn existing<T>(
    found: Result<Option<T>, ReadError>,
    kind: &'static str,
    name: &str,
    field: &'static str,
) -> Result<T, DereferenceError> {
    found
        .map_err(|source| DereferenceError::Read {
            kind,
            name: name.to_owned(),
            source,
        })?
        .ok_or_else(|| DereferenceError::FindObject {
            kind,
            name: name.to_owned(),
            field,
        })
}

fn text(kind: &'static str, name: &str, key: &str, value: Vec<u8>) -> Result<String, DereferenceError> {
    let readable = if value.len() > MAX_VALUE_BYTES {
        None
    } else {
        String::from_utf8(value).ok()
    };
    readable.ok_or_else(|| DereferenceError::ReadText {
        kind,
        name: name.to_owned(),
        key: key.to_owned(),
    })
}

#[cfg(test)]
mod tests;
