//! Secrets, ConfigMaps and ServiceAccounts, read by name from the API server.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::kube_error::describe;
use super::reconcile::dereference::{ObjectReader, ReadError};
use crate::pipeline::single_flight::{self, SingleFlight};

/// How many objects of each kind are kept, and for how long, so that a thousand objects that name one Secret and are
/// looked at together read it once. Each may have 1 MiB.
const CAPACITY: u64 = 32;
const KEPT_FOR: Duration = Duration::from_secs(5);

type Found<K> = SingleFlight<(String, String), Option<Arc<K>>, ReadError>;

/// Reads objects from the API server, each with one `get` by name.
pub struct ClusterObjects {
    client: Client,
    secrets: Found<Secret>,
    config_maps: Found<ConfigMap>,
    service_accounts: Found<ServiceAccount>,
}

impl ClusterObjects {
    /// Reads through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            secrets: SingleFlight::short_lived(CAPACITY, KEPT_FOR),
            config_maps: SingleFlight::short_lived(CAPACITY, KEPT_FOR),
            service_accounts: SingleFlight::short_lived(CAPACITY, KEPT_FOR),
        }
    }

    async fn read<K>(&self, found: &Found<K>, namespace: &str, name: &str) -> Result<Option<K>, ReadError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let work = async {
            let found = api.get_opt(name).await.map_err(|error| read_error(&error))?;
            Ok(found.map(|mut object| {
                // Nobody asks for it, and it may be larger than the values.
                *object.meta_mut() = ObjectMeta::default();
                Arc::new(object)
            }))
        };
        let key = (namespace.to_owned(), name.to_owned());
        let answer = found.get_since(key, single_flight::recent(), work).await;
        match answer.outcome {
            Ok(object) => Ok(object.map(Arc::unwrap_or_clone)),
            Err(error) => Err(error.as_ref().clone()),
        }
    }
}

fn read_error(error: &kube::Error) -> ReadError {
    let forbidden = matches!(error, kube::Error::Api(status) if status.code == 403);
    ReadError {
        message: describe(error),
        forbidden,
    }
}

impl ObjectReader for ClusterObjects {
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, ReadError> {
        self.read(&self.secrets, namespace, name).await
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, ReadError> {
        self.read(&self.config_maps, namespace, name).await
    }

    async fn service_account(&self, namespace: &str, name: &str) -> Result<Option<ServiceAccount>, ReadError> {
        self.read(&self.service_accounts, namespace, name).await
    }
}
