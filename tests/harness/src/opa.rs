//! Runs the real Open Policy Agent on what was delivered.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::ports;
use crate::process::{Process, Program};
use crate::run_directory::RunDirectory;
use crate::tools;
use crate::wait;

/// The value of `query` with the bundle in the file `bundle`.
///
/// # Errors
/// When OPA refuses the bundle, or the query has no value.
pub async fn eval(bundle: &Path, query: &str) -> Result<Value> {
    let opa = Program::new(tools::bin("opa")?)
        .args(["eval", "--format=json", "--bundle"])
        .arg(bundle)
        .arg(query);
    let output: Value = serde_json::from_slice(&opa.output(Duration::from_mins(1)).await?)?;
    let value = output.pointer("/result/0/expressions/0/value").cloned();
    value.with_context(|| format!("query {query:?} has no value"))
}

/// An OPA server on loopback.
#[derive(Debug)]
pub struct Server {
    address: String,
    client: reqwest::Client,
    // Before the directory, so that it ends before its files go.
    process: Process,
    _directory: RunDirectory,
}

impl Server {
    /// Starts `opa run --server --bundle --watch FILE`, as a pod does that mounts the delivered `ConfigMap`.
    ///
    /// # Errors
    /// When OPA is not built or does not come up, for example because it refuses the bundle.
    pub async fn watching(bundle: &Path) -> Result<Self> {
        Self::start(|opa, _| Ok(opa.args(["--bundle", "--watch"]).arg(bundle))).await
    }

    /// Starts OPA with its own registry client (`type: oci`): it pulls `reference`, `host/repository:tag`, by plain HTTP.
    ///
    /// # Errors
    /// When OPA is not built or does not come up.
    pub async fn pulling(host: &str, reference: &str) -> Result<Self> {
        Self::start(|opa, directory| {
            let configuration = json!({
                "services": { "registry": { "url": format!("http://{host}"), "type": "oci" } },
                "bundles": { "policy": {
                    "service": "registry",
                    "resource": reference,
                    "polling": { "min_delay_seconds": 1, "max_delay_seconds": 2 },
                } },
                "persistence_directory": directory.file("persistence"),
            });
            Ok(opa
                .arg("--config-file")
                .arg(directory.write("config.json", configuration.to_string())?))
        })
        .await
    }

    async fn start(configure: impl FnOnce(Program, &RunDirectory) -> Result<Program>) -> Result<Self> {
        crate::init();
        let directory = RunDirectory::new("opa")?;
        let address = format!("127.0.0.1:{}", ports::free()?);
        let opa = Program::new(tools::bin("opa")?)
            .directory(directory.path())
            .env("HOME", directory.path())
            .args(["run", "--server", "--disable-telemetry", "--addr", &address]);
        let mut process = configure(opa, &directory)?.start(directory.file("opa.log"))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()?;
        let url = format!("http://{address}/health");
        process
            .until_ready(Duration::from_secs(30), || async {
                Ok(client.get(&url).send().await?.status().is_success())
            })
            .await?;
        Ok(Self {
            address,
            client,
            process,
            _directory: directory,
        })
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The value of the document at `path`, for example `app/answer`; none when it is undefined.
    ///
    /// # Errors
    /// When OPA does not answer or fails.
    pub async fn data(&self, path: &str) -> Result<Option<Value>> {
        let response = self
            .client
            .get(format!("http://{}/v1/data/{path}", self.address))
            .send()
            .await?;
        if !response.status().is_success() {
            bail!("OPA answers {} to {path:?}", response.status());
        }
        Ok(response.json::<Value>().await?.get("result").cloned())
    }

    /// Waits until the document at `path` is `expected`.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub async fn until_data(&self, path: &str, expected: &Value, limit: Duration) -> Result<()> {
        let what = format!("OPA: {path} = {expected}");
        wait::until(&what, limit, Duration::from_millis(50), || async {
            let found = self.data(path).await?;
            Ok((found.as_ref() == Some(expected)).then_some(()))
        })
        .await
    }

    /// The digest of the layer that a server made by [`Server::pulling`] has active: OPA keeps it, without its
    /// algorithm, as the bundle's entity tag.
    ///
    /// # Errors
    /// When none is active within `limit`.
    pub async fn active_digest(&self, limit: Duration) -> Result<String> {
        wait::until("OPA activates its bundle", limit, Duration::from_millis(50), || async {
            let tag = self.data("system/bundles/policy/etag").await?;
            Ok(tag.and_then(|tag| tag.as_str().map(|hex| format!("sha256:{hex}"))))
        })
        .await
    }

    /// The process: to read its log or to stop it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
