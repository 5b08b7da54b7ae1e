//! The files and flags of a control plane.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::process::Program;
use crate::run_directory::RunDirectory;
use crate::tls::Authority;
use crate::{ports, tools};

/// The namespace that `config/` installs the operator in.
pub const OPERATOR_NAMESPACE: &str = "policy-operator-system";
/// The service account that `config/` runs it as.
pub const OPERATOR_SERVICE_ACCOUNT: &str = "policy-operator";

/// What the programs of a control plane need to find each other.
pub(super) struct Configuration<'a> {
    directory: &'a RunDirectory,
    authority: Authority,
    etcd: String,
    pub(super) server: u16,
}

impl<'a> Configuration<'a> {
    pub(super) fn new(directory: &'a RunDirectory) -> Result<Self> {
        let authority = Authority::new()?;
        let etcd = format!("http://127.0.0.1:{}", ports::free()?);
        Ok(Self {
            directory,
            authority,
            etcd,
            server: ports::free()?,
        })
    }

    pub(super) fn etcd(&self) -> Result<Program> {
        let peer = format!("http://127.0.0.1:{}", ports::free()?);
        Ok(Program::new(tools::bin("etcd")?)
            .arg("--data-dir")
            .arg(self.directory.file("etcd"))
            .arg(format!("--listen-client-urls={}", self.etcd))
            .arg(format!("--advertise-client-urls={}", self.etcd))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            // Nothing here outlives the run.
            .args(["--unsafe-no-fsync", "--log-level=warn"]))
    }

    pub(super) fn api_server(&self) -> Result<Program> {
        let server = self.authority.server()?;
        let accounts = KeyPair::generate()?;
        let file = |flag: &str, name: &str, content: &str| -> Result<String> {
            Ok(format!("--{flag}={}", self.directory.write(name, content)?.display()))
        };
        Ok(Program::new(tools::bin("kube-apiserver")?)
            .arg(format!("--etcd-servers={}", self.etcd))
            .arg(format!("--secure-port={}", self.server))
            .arg(file("tls-cert-file", "server.crt", &server.certificate)?)
            .arg(file("tls-private-key-file", "server.key", &server.key)?)
            .arg(file("client-ca-file", "ca.crt", &self.authority.certificate())?)
            .arg(file(
                "service-account-signing-key-file",
                "accounts.key",
                &accounts.serialize_pem(),
            )?)
            .arg(file(
                "service-account-key-file",
                "accounts.pub",
                &accounts.public_key_pem(),
            )?)
            .arg(file(
                "audit-policy-file",
                "audit-policy.json",
                &audit_policy().to_string(),
            )?)
            .arg(format!("--audit-log-path={}", self.audit_log().display()))
            .args([
                "--bind-address=127.0.0.1",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/24",
            ])
            .args([
                "--service-account-issuer=https://kubernetes.default.svc",
                "--endpoint-reconciler-type=none",
            ])
            .args(["--profiling=false", "--v=1"]))
    }

    /// Writes the kubeconfig of a member of `system:masters`.
    pub(super) fn write_admin_kubeconfig(&self) -> Result<PathBuf> {
        let admin = self.authority.client("admin", "system:masters")?;
        let user = json!({
            "client-certificate": self.directory.write("admin.crt", admin.certificate)?,
            "client-key": self.directory.write("admin.key", admin.key)?,
        });
        self.directory.write(
            "admin.kubeconfig",
            kubeconfig(self.server, self.directory, &user).to_string(),
        )
    }

    fn audit_log(&self) -> PathBuf {
        audit_log(self.directory)
    }
}

/// Only what the operator relies on: garbage collection by owner references, the end of namespaces, and the
/// `default` service account of new ones.
pub(super) fn controller_manager(admin_kubeconfig: &Path) -> Result<Program> {
    Ok(Program::new(tools::bin("kube-controller-manager")?)
        .arg("--kubeconfig")
        .arg(admin_kubeconfig)
        .arg("--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller")
        .args([
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=500",
            "--kube-api-burst=500",
        ]))
}

pub(super) fn audit_log(directory: &RunDirectory) -> PathBuf {
    directory.file("audit.log")
}

/// A kubeconfig for one user; JSON, which is YAML too.
pub(super) fn kubeconfig(server: u16, directory: &RunDirectory, user: &Value) -> Value {
    let cluster = json!({
        "server": format!("https://127.0.0.1:{server}"),
        "certificate-authority": directory.file("ca.crt"),
    });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "local", "cluster": cluster }],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": "local", "context": { "cluster": "local", "user": "user" } }],
        "current-context": "local",
    })
}

/// Writes down what the operator does, and nobody else.
fn audit_policy() -> Value {
    let operator = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_SERVICE_ACCOUNT}");
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata", "users": [operator] }, { "level": "None" }],
    })
}
