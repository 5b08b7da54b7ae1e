//! Secrets, ConfigMaps and ServiceAccounts, read by name from the API server.
//!
//! Of each only what a spec needs is kept: the values of the keys that it names. The rest, which is up to the object's
//! author, neither takes memory nor makes the object unreadable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, LocalObjectReference, Secret, ServiceAccount};
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use serde::Deserialize;

use super::kube_error::describe;
use super::received::{Body, Received};
use super::steps::dereference::{ObjectReader, ReadError, Values};
use crate::pipeline::single_flight::{Freshness, SingleFlight};

/// How many bytes of each kind are cached, and for how long, so that a thousand objects that name one Secret and are
/// reconciled together read it once.
const CAPACITY_BYTES: u64 = 8 << 20;
const KEPT_FOR: Duration = Duration::from_secs(5);

/// An object by namespace and name, and the keys that are needed of it.
type Key = (String, String, Vec<String>);
type Found<T> = SingleFlight<Key, Option<Arc<T>>, ReadError>;

/// Reads objects from the API server, each with one `get` by name.
pub(super) struct ClusterObjects {
    client: Client,
    secrets: Found<Values>,
    config_maps: Found<Values>,
    service_accounts: Found<Vec<String>>,
}

/// What is read of a Secret.
#[derive(Deserialize, Clone)]
struct SecretData {
    data: Option<BTreeMap<String, ByteString>>,
}

/// What is read of a ConfigMap.
#[derive(Deserialize, Clone)]
struct ConfigMapData {
    data: Option<BTreeMap<String, String>>,
}

/// What is read of a ServiceAccount.
#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct ServiceAccountSecrets {
    image_pull_secrets: Option<Vec<LocalObjectReference>>,
}

impl Body for SecretData {}
impl Body for ConfigMapData {}
impl Body for ServiceAccountSecrets {}

impl ClusterObjects {
    /// Reads through `client`.
    #[must_use]
    pub(super) fn new(client: Client) -> Self {
        let weigh_values = |found: &Option<Arc<Values>>| {
            let values = found.iter().flat_map(|values| values.iter());
            weight(values.map(|(key, value)| key.len() + value.len()))
        };
        let weigh_names = |found: &Option<Arc<Vec<String>>>| {
            let names = found.iter().flat_map(|names| names.iter());
            weight(names.map(|name| size_of::<String>() + name.len()))
        };
        Self {
            client,
            secrets: SingleFlight::short_lived(CAPACITY_BYTES, KEPT_FOR, weigh_values),
            config_maps: SingleFlight::short_lived(CAPACITY_BYTES, KEPT_FOR, weigh_values),
            service_accounts: SingleFlight::short_lived(CAPACITY_BYTES, KEPT_FOR, weigh_names),
        }
    }

    /// The same, with results as fresh as required.
    #[must_use]
    pub(super) fn as_of(&self, freshness: Freshness) -> ObjectsAsOf<'_> {
        ObjectsAsOf {
            objects: self,
            freshness,
        }
    }
}

/// Reads objects as fresh as required.
pub(super) struct ObjectsAsOf<'a> {
    objects: &'a ClusterObjects,
    freshness: Freshness,
}

impl ObjectsAsOf<'_> {
    async fn read<K, B, T>(
        &self,
        found: &Found<T>,
        (namespace, name, keys): (&str, &str, &[&str]),
        needed: impl FnOnce(B, &[String]) -> T + Send + 'static,
    ) -> Result<Option<T>, ReadError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + 'static,
        B: Body + 'static,
        T: Clone + Send + Sync + 'static,
    {
        let api: Api<Received<K, B>> = Api::namespaced(self.objects.client.clone(), namespace);
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let key: Key = (namespace.to_owned(), name.to_owned(), keys);
        let (_, name, keys) = key.clone();
        let work = || async move {
            let received = api.get_opt(&name).await.map_err(|error| read_error(&error))?;
            Ok(received.map(|received| Arc::new(needed(received.body, &keys))))
        };
        let result = found.get_fresh(key, &namespace.into(), self.freshness, work).await;
        match result.outcome {
            Ok(object) => Ok(object.map(Arc::unwrap_or_clone)),
            Err(error) => Err(error.as_ref().clone()),
        }
    }
}

fn weight(sizes: impl Iterator<Item = usize>) -> u32 {
    u32::try_from(sizes.sum::<usize>()).unwrap_or(u32::MAX)
}

fn read_error(error: &kube::Error) -> ReadError {
    let message = describe(error);
    match error {
        kube::Error::Api(status) if status.code == 403 => ReadError::Forbid(message),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => ReadError::Decode(message),
        _ => ReadError::Temporary(message),
    }
}

impl ObjectReader for ObjectsAsOf<'_> {
    async fn secret(&self, namespace: &str, name: &str, keys: &[&str]) -> Result<Option<Values>, ReadError> {
        let needed = |body: SecretData, keys: &[String]| {
            let mut data = body.data.unwrap_or_default();
            let values = keys.iter().filter_map(|key| data.remove_entry(key));
            values.map(|(key, value)| (key, value.0)).collect()
        };
        self.read::<Secret, _, _>(&self.objects.secrets, (namespace, name, keys), needed)
            .await
    }

    async fn config_map(&self, namespace: &str, name: &str, keys: &[&str]) -> Result<Option<Values>, ReadError> {
        let needed = |body: ConfigMapData, keys: &[String]| {
            let mut data = body.data.unwrap_or_default();
            let values = keys.iter().filter_map(|key| data.remove_entry(key));
            values.map(|(key, text)| (key, text.into_bytes())).collect()
        };
        self.read::<ConfigMap, _, _>(&self.objects.config_maps, (namespace, name, keys), needed)
            .await
    }

    async fn service_account(&self, namespace: &str, name: &str) -> Result<Option<Vec<String>>, ReadError> {
        let needed = |body: ServiceAccountSecrets, _: &[String]| {
            let secrets = body.image_pull_secrets.into_iter().flatten();
            secrets.map(|secret| secret.name).collect()
        };
        self.read::<ServiceAccount, _, _>(&self.objects.service_accounts, (namespace, name, &[]), needed)
            .await
    }
}

#[cfg(test)]
mod tests;
