//! The connection to the API server.

#![expect(clippy::disallowed_methods, reason = "the environment says where the API server is")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::layer::layer_fn;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

use self::time_limit::TimeLimit;
pub(super) use self::time_limit::WATCH_START_LIMIT;

mod time_limit;

/// How long a connection is quiet before keepalive probes are sent. A watch is quiet for minutes, and on a network that
/// drops packets silently it would stay so.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The interval of keepalive probes, and how many may go unanswered.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Why the API server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The file given by `--kubeconfig`.
    #[error("kubeconfig '{file}' cannot be used")]
    ReadKubeconfig {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// Neither a service account nor a kubeconfig.
    #[error("no cluster: run in a pod, set KUBECONFIG, or give '--kubeconfig'")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The API server's URL is only a path.
    #[error("the URL of the API server names no host; check the kubeconfig")]
    MissingHost,
    /// The API server's name has no address now.
    #[error("the API server's host '{host}' does not resolve; check the kubeconfig and the cluster's DNS")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver reported.
        source: std::io::Error,
    },
    /// TLS or proxy settings.
    #[error("the client for the API server cannot be made")]
    Client(#[source] Box<kube::Error>),
}

/// The configuration: of the given file, else of the pod's service account, else of the file that `KUBECONFIG` names.
///
/// # Errors
/// [`ConnectError`].
pub(super) async fn config(kubeconfig: Option<&Path>) -> Result<Config, ConnectError> {
    let Some(file) = kubeconfig else {
        // In a pod the service account comes first: a stray KUBECONFIG must not send the operator elsewhere.
        return match Config::incluster() {
            Ok(config) => Ok(config),
            Err(_) => Config::infer()
                .await
                .map_err(|error| ConnectError::Infer(Box::new(error))),
        };
    };
    let failed = |source| ConnectError::ReadKubeconfig {
        file: file.display().to_string(),
        source,
    };
    let kubeconfig = Kubeconfig::read_from(file).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(failed)
}

/// A client whose every call has a [time limit](time_limit).
///
/// # Errors
/// [`ConnectError::Client`].
pub(super) fn client(config: Config) -> Result<Client, ConnectError> {
    build(config).map_err(|error| ConnectError::Client(Box::new(error)))
}

/// The stack of kube's own builder, with connections that notice when the server is gone.
fn build(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // Only kube knows how to reach a proxy, or says which of its features that would need.
        let builder = ClientBuilder::try_from(config)?;
        return Ok(builder.with_layer(&layer_fn(TimeLimit::new)).build());
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let retries = RetryLayer::new(RetryPolicy::server_retry());
    let service = ServiceBuilder::new()
        .layer(layer_fn(TimeLimit::new))
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then_some(retries))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}

/// The API server's own addresses, which no registry may lead to.
///
/// # Errors
/// [`ConnectError`]: without them registries could lead there unnoticed, so the program must not start.
pub(super) async fn addresses(config: &Config) -> Result<Vec<SocketAddr>, ConnectError> {
    let host = config.cluster_url.host().ok_or(ConnectError::MissingHost)?;
    let host = host.trim_matches(['[', ']']);
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let unresolved = |source| ConnectError::Resolve {
        host: host.to_owned(),
        source,
    };
    let addresses: Vec<_> = tokio::net::lookup_host((host, port))
        .await
        .map_err(unresolved)?
        .collect();
    if addresses.is_empty() {
        return Err(unresolved(std::io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

/// Whether the process is outside of a pod, so that its configuration's namespace is a user's and not its own.
#[must_use]
pub(super) fn is_outside(kubeconfig: Option<&Path>) -> bool {
    kubeconfig.is_some() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_none()
}

/// The pod's name in a pod, the machine's elsewhere.
#[must_use]
pub(super) fn host_name() -> String {
    let from_environment = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok();
    let from_system = || {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .ok()
            .map(|name| name.trim().to_owned())
    };
    from_environment
        .or_else(from_system)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "policy-operator".to_owned())
}

#[cfg(test)]
mod tests;
