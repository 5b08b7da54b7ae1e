//! Fetches what the spec names.
//!
//! Everything is read in the object's own namespace and by name: no reference has a namespace, and no Secret is ever
//! listed or watched.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};

use crate::operator::api::grammar::is_object_name;
use crate::operator::api::spec::{AuthorityCertificates, KeyReference, KeySource, PolicyImageSpec};
use crate::pipeline::reason::{Classify, Disposition, Reason};

/// Most bytes that are read from one key.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Most bytes of all values that one object refers to, those of its ServiceAccount included. Each run holds them all, so
/// that fifty values of the largest size would be fifty times as much.
pub const MAX_REFERENCE_BYTES: usize = 2 << 20;

/// Most pull secrets of one object, those of its ServiceAccount included: an API server does not count the latter.
pub const MAX_PULL_SECRETS: usize = 32;

/// How soon an absent reference is looked for again.
const ABSENT_RETRY: Duration = Duration::from_secs(30);

/// Where named objects are read: an API server, or the files given to `render`.
pub trait ObjectReader: Send + Sync {
    /// A Secret, if it exists.
    fn secret(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Option<Secret>, ReadError>> + Send;
    /// A ConfigMap, if it exists.
    fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<ConfigMap>, ReadError>> + Send;
    /// A ServiceAccount, if it exists.
    fn service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<ServiceAccount>, ReadError>> + Send;
}

/// Why an object could not be read: the API server said so.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// What the API server said, without a response body.
    pub message: String,
    /// Whether it refused, which only a change of permissions helps.
    pub forbidden: bool,
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
    /// What is written can be no object's name, and could lead out of the namespace.
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
            Self::Name { .. } | Self::CountPullSecrets { .. } | Self::ReadText { .. } | Self::LimitBytes => {
                Reason::ReferenceInvalid
            }
            Self::Read { .. } => Reason::KubernetesApiFailed,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::FindObject { .. } | Self::FindKey { .. } => Disposition::WaitFor(ABSENT_RETRY),
            Self::Name { .. } | Self::CountPullSecrets { .. } | Self::ReadText { .. } | Self::LimitBytes => {
                Disposition::Stalled
            }
            Self::Read { source, .. } if source.forbidden => Disposition::Stalled,
            Self::Read { .. } => Disposition::Retry,
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
            let secret = reader.secret(name, field).await?;
            let chain = reader.secret_text(&secret, name, "tls.crt", field)?;
            let key = reader.secret_text(&secret, name, "tls.key", field)?;
            references.client_certificate = Some((chain, key));
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
            named.extend(
                found
                    .image_pull_secrets
                    .into_iter()
                    .flatten()
                    .map(|secret| (secret.name, field)),
            );
        }
        if named.len() > MAX_PULL_SECRETS {
            return Err(DereferenceError::CountPullSecrets { found: named.len() });
        }
        let mut values = Vec::with_capacity(named.len());
        for (name, field) in named {
            let secret = self.secret(&name, field).await?;
            let value = secret_value(&secret, &name, ".dockerconfigjson", field)?;
            self.spend(value.len())?;
            values.push((name, value.to_vec()));
        }
        Ok(values)
    }

    async fn secret(&self, name: &str, field: &'static str) -> Result<Secret, DereferenceError> {
        check_name("Secret", name, field)?;
        existing(self.objects.secret(self.namespace, name).await, "Secret", name, field)
    }

    async fn either(
        &mut self,
        secret: Option<&KeyReference>,
        config_map: Option<&KeyReference>,
        field: &'static str,
    ) -> Result<Option<String>, DereferenceError> {
        if let Some(KeyReference { name, key }) = secret {
            let secret = self.secret(name, field).await?;
            return self.secret_text(&secret, name, key, field).map(Some);
        }
        let Some(KeyReference { name, key }) = config_map else {
            return Ok(None);
        };
        let kind = "ConfigMap";
        check_name(kind, name, field)?;
        let found = existing(self.objects.config_map(self.namespace, name).await, kind, name, field)?;
        let missing = || DereferenceError::FindKey {
            kind,
            name: name.clone(),
            key: key.clone(),
            field,
        };
        let value = found.data.as_ref().and_then(|data| data.get(key)).ok_or_else(missing)?;
        self.spend(value.len())?;
        text(kind, name, key, value.as_bytes()).map(Some)
    }

    fn secret_text(
        &mut self,
        secret: &Secret,
        name: &str,
        key: &str,
        field: &'static str,
    ) -> Result<String, DereferenceError> {
        let value = secret_value(secret, name, key, field)?;
        self.spend(value.len())?;
        text("Secret", name, key, value)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), DereferenceError> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or(DereferenceError::LimitBytes)?;
        Ok(())
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

fn secret_value<'a>(
    secret: &'a Secret,
    name: &str,
    key: &str,
    field: &'static str,
) -> Result<&'a [u8], DereferenceError> {
    let value = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .map(|value| value.0.as_slice());
    // `stringData` is never returned by an API server; `render` reads manifests that have it.
    let value = value.or_else(|| {
        secret
            .string_data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(String::as_bytes)
    });
    value.ok_or_else(|| DereferenceError::FindKey {
        kind: "Secret",
        name: name.to_owned(),
        key: key.to_owned(),
        field,
    })
}

fn text(kind: &'static str, name: &str, key: &str, value: &[u8]) -> Result<String, DereferenceError> {
    let unreadable = || DereferenceError::ReadText {
        kind,
        name: name.to_owned(),
        key: key.to_owned(),
    };
    let value = std::str::from_utf8(value).map_err(|_| unreadable())?;
    if value.len() > MAX_VALUE_BYTES {
        Err(unreadable())
    } else {
        Ok(value.to_owned())
    }
}

#[cfg(test)]
mod tests;
