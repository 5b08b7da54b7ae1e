//! Starts a control plane with the CRD and the operator's rights installed, and keeps it until Ctrl-C.
#![expect(clippy::print_stdout, reason = "a program for people")]

use anyhow::Result;
use policy_operator_harness::cluster::ControlPlane;

#[tokio::main]
async fn main() -> Result<()> {
    println!("Starting etcd, kube-apiserver and kube-controller-manager ...");
    let cluster = ControlPlane::start().await?;
    println!("Ready. In another terminal:\n");
    println!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("  cargo run -- run --allow-loopback --kubeconfig {}\n", cluster.operator_kubeconfig().await?.display());
    println!("The second command runs the operator with the rights that config/ gives it. Ctrl-C ends the cluster.");
    policy_operator_harness::process::until_asked_to_end().await?;
    cluster.stop().await
}
