//! Fetches what the spec names.
//!
//! Everything is read in the object's own namespace and by name: no reference has a namespace, and no Secret is ever
//! listed or watched.

mod error;
mod reader;

use std::collections::BTreeMap;

use crate::operator::api::grammar::is_object_name;
use crate::operator::api::spec::{AuthorityCertificates, KeyReference, KeySource, PolicyImageSpec};

pub use error::{DereferenceError, MAX_PULL_SECRETS, MAX_REFERENCE_BYTES};
pub use reader::{ObjectReader, ReadError, Values};

/// Most bytes that are read from one key.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

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
    Ok(References {
        pull_secrets: reader.pull_secrets(spec).await?,
        authority_certificates: reader.authority_certificates(spec).await?,
        client_certificate: reader.client_certificate(spec).await?,
        keys: reader.keys(spec).await?,
    })
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

    async fn authority_certificates(&mut self, spec: &PolicyImageSpec) -> Result<Option<String>, DereferenceError> {
        let Some(AuthorityCertificates {
            secret_ref,
            config_map_ref,
        }) = spec.tls.as_ref().and_then(|tls| tls.ca_ref.as_ref())
        else {
            return Ok(None);
        };
        self.either(secret_ref.as_ref(), config_map_ref.as_ref(), "spec.tls.caRef")
            .await
    }

    async fn client_certificate(
        &mut self,
        spec: &PolicyImageSpec,
    ) -> Result<Option<(String, String)>, DereferenceError> {
        let Some(certificate) = spec.tls.as_ref().and_then(|tls| tls.cert_secret_ref.as_ref()) else {
            return Ok(None);
        };
        let (name, field) = (&certificate.name, "spec.tls.certSecretRef");
        let mut values = self.secret(name, &["tls.crt", "tls.key"], field).await?;
        let mut take = |key| text("Secret", name, key, values.take(key)?);
        Ok(Some((take("tls.crt")?, take("tls.key")?)))
    }

    /// An authority without any source of its key has none here, which validation reports.
    async fn keys(&mut self, spec: &PolicyImageSpec) -> Result<BTreeMap<String, String>, DereferenceError> {
        let mut keys = BTreeMap::new();
        for authority in spec.verify.iter().flat_map(|verify| &verify.authorities) {
            let KeySource {
                data,
                secret_ref,
                config_map_ref,
            } = &authority.key;
            let field = "spec.verify.authorities.key";
            let text = match data {
                Some(data) => Some(data.clone()),
                None => self.either(secret_ref.as_ref(), config_map_ref.as_ref(), field).await?,
            };
            keys.extend(text.map(|text| (authority.name.clone(), text)));
        }
        Ok(keys)
    }

    async fn secret<'a>(
        &mut self,
        name: &'a str,
        keys: &[&str],
        field: &'static str,
    ) -> Result<Found<'a>, DereferenceError> {
        check_name("Secret", name, field)?;
        let found = self.objects.secret(self.namespace, name, keys).await;
        self.found("Secret", name, field, found)
    }

    async fn config_map<'a>(
        &mut self,
        name: &'a str,
        keys: &[&str],
        field: &'static str,
    ) -> Result<Found<'a>, DereferenceError> {
        check_name("ConfigMap", name, field)?;
        let found = self.objects.config_map(self.namespace, name, keys).await;
        self.found("ConfigMap", name, field, found)
    }

    /// The values that were read, if there are, and if they fit into what is left of [`MAX_REFERENCE_BYTES`].
    fn found<'a>(
        &mut self,
        kind: &'static str,
        name: &'a str,
        field: &'static str,
        found: Result<Option<Values>, ReadError>,
    ) -> Result<Found<'a>, DereferenceError> {
        let values = existing(found, kind, name, field)?;
        let bytes = values.values().map(Vec::len).sum();
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or(DereferenceError::LimitBytes)?;
        Ok(Found {
            kind,
            name,
            field,
            values,
        })
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
