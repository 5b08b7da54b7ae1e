//! The control plane does what the operator's tests rely on: rights, audit log, garbage collection.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use policy_operator_harness::cluster::{AuditEntry, ControlPlane, OPERATOR_NAMESPACE, OPERATOR_SERVICE_ACCOUNT};
use policy_operator_harness::tools::repository_root;
use policy_operator_harness::wait;

const LIMIT: Duration = Duration::from_secs(30);

async fn operator_client(cluster: &ControlPlane) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.operator_kubeconfig().await?)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn config_map(name: &str, owner: Option<&ConfigMap>) -> ConfigMap {
    let owner_references = owner.map(|owner| {
        vec![OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: owner.name_any(),
            uid: owner.uid().unwrap_or_default(),
            ..OwnerReference::default()
        }]
    });
    let metadata = ObjectMeta {
        name: Some(name.into()),
        owner_references,
        ..ObjectMeta::default()
    };
    ConfigMap {
        metadata,
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn the_operator_may_get_secrets_but_not_list_them_and_both_are_written_down() {
    let cluster = ControlPlane::shared().await.unwrap();
    let namespace = cluster.namespace("rights").await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(operator_client(cluster).await.unwrap(), &namespace);
    assert!(secrets.get_opt("absent").await.unwrap().is_none());
    let refused = secrets.list(&ListParams::default()).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 403),
        "{refused}"
    );
    let asked = cluster.audit(|entry| entry.namespace == namespace).unwrap();
    let entry = |verb: &str, name: &str, code| AuditEntry {
        verb: verb.into(),
        resource: "secrets".into(),
        namespace: namespace.clone(),
        name: name.into(),
        code,
    };
    assert_eq!(asked, [entry("get", "absent", 404), entry("list", "", 403)]);
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner() {
    let cluster = ControlPlane::shared().await.unwrap();
    let namespace = cluster.namespace("garbage").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await.unwrap(), &namespace);
    let owner = maps
        .create(&PostParams::default(), &config_map("owner", None))
        .await
        .unwrap();
    maps.create(&PostParams::default(), &config_map("owned", Some(&owner)))
        .await
        .unwrap();
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    wait::until("the owned object goes", LIMIT, Duration::from_millis(50), || async {
        Ok(maps.get_opt("owned").await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_control_plane_of_ones_own_starts_and_stops() {
    let cluster = ControlPlane::start().await.unwrap();
    let output = cluster
        .kubectl()
        .unwrap()
        .args(["get", "policyimages", "-A"])
        .output(LIMIT)
        .await
        .unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), "");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn every_example_is_accepted() {
    let cluster = ControlPlane::shared().await.unwrap();
    for directory in ["examples", "config/samples/opcr.io_v1alpha1_policyimage.yaml"] {
        let apply = cluster.kubectl().unwrap().directory(repository_root());
        apply
            .args(["apply", "--dry-run=server", "--validate=strict", "-f", directory])
            .output(LIMIT)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_restricted_profile_admits_the_operators_pod() {
    let cluster = ControlPlane::shared().await.unwrap();
    let client = cluster.client().await.unwrap();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let template = deployments
        .get(OPERATOR_SERVICE_ACCOUNT)
        .await
        .unwrap()
        .spec
        .unwrap()
        .template;
    let metadata = ObjectMeta {
        name: Some("pod".into()),
        ..ObjectMeta::default()
    };
    let mut pod = Pod {
        metadata,
        spec: template.spec,
        ..Pod::default()
    };
    let pods: Api<Pod> = Api::namespaced(client, OPERATOR_NAMESPACE);
    let try_only = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    pods.create(&try_only, &pod).await.unwrap();

    pod.spec.as_mut().unwrap().containers[0].security_context = None;
    let refused = pods.create(&try_only, &pod).await.unwrap_err();
    assert!(refused.to_string().contains("violates PodSecurity"), "{refused}");
}
