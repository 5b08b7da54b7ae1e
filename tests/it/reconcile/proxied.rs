//! An operator that reaches its API server through a proxy which a test can script.

use std::collections::BTreeSet;
use std::sync::Mutex;

use policy_operator_harness::api_proxy::{ApiProxy, EventReply, Reply};
use policy_operator_harness::cluster::ControlPlane;
use policy_operator_harness::operator::{Operator, OperatorOptions};
use policy_operator_harness::registry::{InProcess, InProcessOptions};
use serde_json::{Value, json};

use super::{Arena, operator_kubeconfig, operator_options};

/// An [`Arena`] with a proxy before its API server. The tests themselves go past it.
pub(super) struct Proxied {
    pub(super) arena: Arena,
    pub(super) proxy: ApiProxy,
}

impl Proxied {
    pub(super) async fn open(name: &str) -> Self {
        let cluster = ControlPlane::shared().await.expect("control plane");
        let namespace = cluster.namespace(name).await.expect("namespace");
        let proxy = ApiProxy::start(&operator_kubeconfig(cluster).await)
            .await
            .expect("proxy");
        let operator = launch(cluster, &namespace, &proxy).await;
        let mut arena = Arena {
            cluster,
            client: cluster.client().await.expect("client"),
            namespace,
            registry: InProcess::start(InProcessOptions::default()).await.expect("registry"),
            operator,
        };
        arena.operator.ready().await.expect("operator");
        Self { arena, proxy }
    }

    /// Starts the operator again, after the test ended it, without waiting until it is ready.
    pub(super) async fn launch(&mut self) {
        self.arena.operator = launch(self.arena.cluster, &self.arena.namespace, &self.proxy).await;
    }

    /// Ends all faults, and lets both watches list anew: their next attempt is answered as one that came too late.
    pub(super) fn heal_and_relist(&self) {
        self.proxy.heal();
        let expired = Mutex::new(BTreeSet::new());
        self.proxy.requests(move |asked| {
            if asked.is_watch() && expired.lock().expect("no panic").insert(asked.path.clone()) {
                Reply::Answer(200, Vec::new(), format!("{}\n", expired_event()))
            } else {
                Reply::Pass
            }
        });
        self.proxy.cut_watches();
    }
}

/// What the API server says on a watch that asks for versions it no longer has.
pub(super) fn expired_event() -> Value {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": 410, "reason": "Expired", "message": "too old resource version",
    });
    json!({ "type": "ERROR", "object": status })
}

/// A bookmark that says the operator has seen all up to the version of `event`.
pub(super) fn bookmark_instead(event: &Value) -> EventReply {
    let object = &event["object"];
    let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"], "annotations": {} });
    let bookmark = json!({
        "type": "BOOKMARK",
        "object": { "kind": object["kind"], "apiVersion": object["apiVersion"], "metadata": metadata },
    });
    EventReply::Instead(bookmark)
}

async fn launch(cluster: &ControlPlane, namespace: &str, proxy: &ApiProxy) -> Operator {
    let kubeconfig = operator_kubeconfig(cluster).await;
    let kubeconfig = proxy.kubeconfig(&kubeconfig, cluster.directory());
    let options = OperatorOptions {
        kubeconfig: kubeconfig.expect("kubeconfig"),
        ..operator_options(cluster, namespace).await
    };
    Operator::start(&options).expect("operator")
}
