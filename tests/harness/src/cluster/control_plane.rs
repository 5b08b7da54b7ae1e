use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::OnceCell;

use super::audit::{self, AuditEntry};
use super::configuration::{
    Configuration, OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT, audit_log, controller_manager, kubeconfig,
};
use crate::process::{Process, Program};
use crate::run_directory::RunDirectory;
use crate::tools::{self, repository_root};
use crate::wait;

const LIMIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);

/// A running control plane, with the operator's CRD and rights installed from `config/`.
#[derive(Debug)]
pub struct ControlPlane {
    server: u16,
    kubeconfig: PathBuf,
    api_server_program: Program,
    // In the order in which they must end, and before the directory with their files.
    controller_manager: Option<Process>,
    api_server: Process,
    etcd: Process,
    directory: RunDirectory,
}

impl ControlPlane {
    /// Starts one, which takes about five seconds.
    ///
    /// # Errors
    /// When a program is not built or does not come up, or when the API server refuses `config/`.
    pub async fn start() -> Result<Self> {
        let mut cluster = Self::start_without_controllers().await?;
        // After the CRD: the garbage collector looks for new kinds only every 30 seconds.
        let manager = controller_manager(&cluster.kubeconfig)?;
        let log = cluster.directory.file("kube-controller-manager.log");
        cluster.controller_manager = Some(manager.start(log)?);
        Ok(cluster)
    }

    /// Starts one without kube-controller-manager: objects are stored and watched, but nothing collects garbage or makes
    /// service accounts for new namespaces.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_without_controllers() -> Result<Self> {
        crate::init();
        let directory = RunDirectory::new("cluster")?;
        let configuration = Configuration::new(&directory)?;
        let kubeconfig = configuration.write_admin_kubeconfig()?;
        let etcd = configuration.etcd()?.start(directory.file("etcd.log"))?;
        // Not after etcd is ready: it retries until it finds etcd, and loads for a second first.
        let api_server_program = configuration.api_server()?;
        let mut api_server = api_server_program.start(directory.file("kube-apiserver.log"))?;
        let client = client(&kubeconfig).await?;
        let ready = || async {
            let request = axum::http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await? == "ok")
        };
        api_server.until_ready(LIMIT, ready).await?;
        install(&kubeconfig).await?;
        let server = configuration.server;
        Ok(Self {
            server,
            kubeconfig,
            api_server_program,
            controller_manager: None,
            api_server,
            etcd,
            directory,
        })
    }

    /// The one that all tests of this process share; the first call starts it, and it ends with the process.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The kubeconfig file of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with the rights of an administrator, for the current runtime: one made on another runtime stops when
    /// that runtime does.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// Makes a new namespace, waits for its `default` service account, and returns its name.
    ///
    /// # Errors
    /// When the API server refuses the name.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let client = self.client().await?;
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &name);
        let what = format!("service account \"default\" in namespace {name:?}");
        wait::until(&what, LIMIT, PAUSE, || async { Ok(accounts.get_opt("default").await?) }).await?;
        Ok(name)
    }

    /// Writes a kubeconfig with a token of the operator's service account: who uses it has exactly the rights that
    /// `config/` gives, and is written down in the audit log.
    ///
    /// # Errors
    /// When the service account is not there.
    pub async fn operator_kubeconfig(&self) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, OPERATOR_NAMESPACE);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(24 * 60 * 60),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(OPERATOR_SERVICE_ACCOUNT, &PostParams::default(), &request)
            .await?;
        let token = answer.status.context("token request without an answer")?.token;
        let content = kubeconfig(self.server, &self.directory, &json!({ "token": token }));
        self.directory.write("operator.kubeconfig", content.to_string())
    }

    /// kubectl as an administrator.
    ///
    /// # Errors
    /// When it is not built.
    pub fn kubectl(&self) -> Result<Program> {
        kubectl(&self.kubeconfig)
    }

    /// What the operator's service account asked the API server, in order, if `filter` agrees.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit(&self, filter: impl Fn(&AuditEntry) -> bool) -> Result<Vec<AuditEntry>> {
        Ok(audit::read(&audit_log(&self.directory))?
            .into_iter()
            .filter(filter)
            .collect())
    }

    /// Its files and logs.
    #[must_use]
    pub fn directory(&self) -> &RunDirectory {
        &self.directory
    }

    /// The API server's process, for tests that take it away.
    pub fn api_server(&mut self) -> &mut Process {
        &mut self.api_server
    }

    /// Kills the API server and starts it again, with the same keys and the same etcd, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn restart_api_server(&mut self) -> Result<()> {
        self.api_server.kill().await?;
        let log = self.directory.file("kube-apiserver-again.log");
        self.api_server = self.api_server_program.start(log)?;
        let client = self.client().await?;
        let ready = || async {
            let request = axum::http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await? == "ok")
        };
        self.api_server.until_ready(LIMIT, ready).await
    }

    /// The port of the API server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server
    }

    /// Ends everything. By force: nothing here is kept, and the API server's farewell takes many seconds.
    ///
    /// # Errors
    /// When a process cannot be ended.
    pub async fn stop(mut self) -> Result<()> {
        let first = self.controller_manager.as_mut();
        for process in first.into_iter().chain([&mut self.api_server, &mut self.etcd]) {
            process.kill().await?;
        }
        Ok(())
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    crate::init();
    let mut config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

fn kubectl(kubeconfig: &Path) -> Result<Program> {
    // A cache of discovery in the home directory would mix clusters that had the same port.
    let cache = kubeconfig.with_file_name("kubectl-cache");
    Ok(Program::new(tools::bin("kubectl")?)
        .env("KUBECONFIG", kubeconfig)
        .env("KUBECACHEDIR", cache))
}

async fn install(kubeconfig: &Path) -> Result<()> {
    let config = repository_root().join("config");
    let apply = kubectl(kubeconfig)?
        .args(["apply", "--server-side", "--force-conflicts", "--kustomize"])
        .arg(config);
    apply.output(LIMIT).await.context("install config/")?;
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd/policyimages.opcr.io",
    ];
    kubectl(kubeconfig)?.args(wait).output(LIMIT).await?;
    Ok(())
}
