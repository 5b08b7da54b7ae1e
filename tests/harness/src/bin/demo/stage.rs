//! The programs that the demo runs on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject};
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::object;
use policy_operator_harness::operator::{Operator, OperatorOptions};
use policy_operator_harness::registry::{Distribution, DistributionOptions, Endpoint};
use policy_operator_harness::tools::repository_root;

const NAMESPACE: &str = "default";
const LIMIT: Duration = Duration::from_mins(1);
/// How long a line of running text may be.
const WIDTH: usize = 90;

pub(crate) struct Stage {
    cluster: ControlPlane,
    registry: Distribution,
    operator: Operator,
}

impl Stage {
    pub(crate) async fn start() -> Result<Self> {
        println!("Starting a Kubernetes API server, a registry and the operator ...");
        let cluster = ControlPlane::start_without_controllers().await?;
        let registry = Distribution::start(DistributionOptions::default()).await?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository_root().join("target"), PathBuf::from);
        let mut operator = Operator::start(&OperatorOptions {
            binary: target.join("debug/policy-operator"),
            kubeconfig: cluster.operator_kubeconfig().await?,
            ..OperatorOptions::default()
        })?;
        operator.ready().await?;
        Ok(Self {
            cluster,
            registry,
            operator,
        })
    }

    pub(crate) fn registry(&self) -> &Endpoint {
        self.registry.endpoint()
    }

    pub(crate) async fn objects(&self) -> Result<Api<DynamicObject>> {
        Ok(object::api(self.cluster.client().await?, NAMESPACE))
    }

    /// Prints the command that applies a manifest, and applies it.
    pub(crate) async fn apply(&self, manifest: &str) -> Result<()> {
        println!("$ kubectl apply -f - <<EOF\n{manifest}EOF");
        let file = self.cluster.directory().write("policyimage.yaml", manifest)?;
        self.kubectl(&["apply", "--filename", &file.to_string_lossy()]).await
    }

    /// Prints a kubectl command, runs it, and prints its output.
    pub(crate) async fn show(&self, arguments: &[&str]) -> Result<()> {
        println!("$ kubectl {}", arguments.join(" "));
        self.kubectl(arguments).await
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        let output = self.cluster.kubectl()?.args(arguments).output(LIMIT).await?;
        println!("{}", String::from_utf8_lossy(&output).trim_end());
        Ok(())
    }

    /// The bytes under `bundle.tar.gz` in a `ConfigMap`.
    pub(crate) async fn delivered(&self, name: &str) -> Result<Vec<u8>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.cluster.client().await?, NAMESPACE);
        let data = maps.get(name).await?.binary_data.unwrap_or_default();
        Ok(data
            .get("bundle.tar.gz")
            .with_context(|| format!("no bundle in configmap {name:?}"))?
            .0
            .clone())
    }

    /// Writes them to a file, as the kubelet does for a Pod that mounts the `ConfigMap`.
    pub(crate) async fn write_delivered(&self, name: &str) -> Result<PathBuf> {
        let directory = self.cluster.directory().file(name);
        std::fs::create_dir_all(&directory)?;
        let file = directory.join("bundle.tar.gz");
        std::fs::write(&file, self.delivered(name).await?)?;
        Ok(file)
    }

    pub(crate) fn print_how_to_use(&self) {
        let logs = self.operator.directory().path();
        println!("\nEverything keeps running until you press Ctrl-C. In another terminal:\n");
        println!("  export KUBECONFIG={}", self.cluster.kubeconfig().display());
        println!("  kubectl describe policyimage orders\n");
        println!("The registry is {}. The operator's log is in", self.registry.host());
        println!("{}.", logs.display());
    }

    pub(crate) async fn end(mut self) -> Result<()> {
        self.operator.process().stop().await?;
        self.registry.process().stop().await?;
        self.cluster.stop().await
    }
}

/// The text in lines that fit a terminal.
pub(crate) fn indented(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + word.chars().count() > WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.extend([" ", word]);
        }
    }
    lines
        .iter()
        .map(|line| format!(" {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Prints what comes next.
pub(crate) fn heading(text: &str) {
    println!("\n=== {text}");
}
