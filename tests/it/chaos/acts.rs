//! What goes wrong.

use std::time::Duration;

use k8s_openapi::ByteString;
use kube::api::{DeleteParams, Patch, PatchParams};
use policy_operator_harness::faulty_proxy::Fault;
use policy_operator_harness::process::Signal;
use serde_json::json;

use super::world::World;

impl World {
    /// One thing, chosen at random. Where `processes_stay`, none that ends or replaces a process of the operator.
    pub(super) async fn act(&mut self, processes_stay: bool) {
        let acts = if processes_stay { 0..72 } else { 0..100 };
        let act = match self.random.u8(acts) {
            0..25 => self.a_tag_moves().await,
            25..40 => self.a_person_asks().await,
            40..52 => self.a_config_map_is_edited().await,
            52..58 => self.a_config_map_is_deleted().await,
            58..72 => self.the_registry_changes_its_mood(),
            72..80 => self.the_way_to_the_api_server_changes(),
            80..86 => self.an_object_is_suspended_or_resumed().await,
            86..92 => self.a_replica_is_killed().await,
            92..94 => self.a_replica_is_paused().await,
            94..96 => self.the_clock_steps(),
            96..98 => self.the_disk_fails(),
            _ => self.the_api_server_is_killed().await,
        };
        *self.counts.entry(act).or_default() += 1;
    }

    async fn a_tag_moves(&mut self) -> &'static str {
        let name = self.any_name();
        self.move_tag(&name).await;
        "tags moved"
    }

    async fn a_person_asks(&mut self) -> &'static str {
        let name = self.any_name();
        self.request(&name).await;
        "runs requested"
    }

    async fn a_config_map_is_edited(&mut self) -> &'static str {
        if let Some(name) = self.any_config_map().await {
            let content = ByteString(b"package app\nallow := true".to_vec());
            let patch = match self.random.u8(0..4) {
                0 => json!({ "binaryData": { "bundle.tar.gz": content } }),
                1 => json!({ "binaryData": { "another.tar.gz": content } }),
                2 => json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } }),
                _ => json!({ "metadata": { "annotations": { "opcr.io/bundle-digest": "none" } } }),
            };
            let parameters = PatchParams {
                field_manager: Some("chaos-test".to_owned()),
                ..PatchParams::default()
            };
            // It may have been deleted meanwhile.
            let _ = self.config_maps().patch(&name, &parameters, &Patch::Merge(patch)).await;
        }
        "ConfigMaps edited"
    }

    async fn a_config_map_is_deleted(&mut self) -> &'static str {
        if let Some(name) = self.any_config_map().await {
            let _ = self.config_maps().delete(&name, &DeleteParams::default()).await;
        }
        "ConfigMaps deleted"
    }

    fn the_registry_changes_its_mood(&mut self) -> &'static str {
        let percent = self.random.choice([0, 30, 100]).unwrap_or_default();
        let faults = self.random.choose_multiple(Fault::REGISTRY, 3);
        self.to_registry.set(&faults, percent);
        let faults = self.random.choose_multiple(Fault::TRANSPORT, 2);
        self.to_tls_registry.set(&faults, percent);
        "changes of the registry's faults"
    }

    fn the_way_to_the_api_server_changes(&mut self) -> &'static str {
        let percent = self.random.choice([0, 0, 30, 100]).unwrap_or_default();
        let faults = self.random.choose_multiple(Fault::TRANSPORT, 2);
        self.to_api_server.set(&faults, percent);
        "changes of the API server's faults"
    }

    async fn an_object_is_suspended_or_resumed(&mut self) -> &'static str {
        let (name, suspend) = (self.any_name(), self.random.bool());
        self.patch(&name, json!({ "spec": { "suspend": suspend } })).await;
        "objects suspended or resumed"
    }

    async fn a_replica_is_killed(&mut self) -> &'static str {
        let which = self.random.usize(0..self.replicas.len());
        let fresh = self.launch();
        let mut old = std::mem::replace(&mut self.replicas[which], fresh);
        old.process().kill().await.expect("killed");
        "replicas killed"
    }

    async fn a_replica_is_paused(&mut self) -> &'static str {
        let which = self.random.usize(0..self.replicas.len());
        let seconds = self.random.u64(1..4);
        let process = self.replicas[which].process();
        // A replica that lost its Lease has ended by itself, as it must.
        if process.signal(Signal::STOP).is_ok() {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            // It may have been about to end.
            let _ = process.signal(Signal::CONT);
        }
        self.replace_ended();
        "replicas paused"
    }

    /// The directory for downloads goes away, and comes back with the next act of this kind or in the end.
    fn the_disk_fails(&mut self) -> &'static str {
        for replica in &self.replicas {
            let (there, gone) = (
                replica.directory().file("cache/tmp"),
                replica.directory().file("cache/gone"),
            );
            if std::fs::rename(&there, &gone).is_err() {
                let _ = std::fs::rename(&gone, &there);
            }
        }
        "failures or repairs of the disk"
    }

    /// Of both replicas: by up to ten years, there or back.
    fn the_clock_steps(&mut self) -> &'static str {
        const DAY: i64 = 24 * 3600;
        let step = self.random.choice([-3650 * DAY, -DAY, -60, 0, 60, DAY, 3650 * DAY]);
        self.clock.step(step.unwrap_or_default()).expect("stepped");
        "steps of the clock"
    }

    async fn the_api_server_is_killed(&mut self) -> &'static str {
        self.cluster.restart_api_server().await.expect("comes up again");
        "API servers killed"
    }

    /// A replica that lost its Lease ends, and the kubelet would start it again.
    pub(super) fn replace_ended(&mut self) {
        for which in 0..self.replicas.len() {
            if self.replicas[which]
                .process()
                .ended()
                .is_ok_and(|ended| ended.is_some())
            {
                self.replicas[which] = self.launch();
            }
        }
    }

    /// All faults end; what was stopped goes on.
    pub(super) async fn heal(&mut self) {
        self.to_registry.heal();
        self.to_tls_registry.heal();
        self.to_api_server.heal();
        self.clock.step(0).expect("stepped");
        self.replace_ended();
        for replica in &self.replicas {
            let (there, gone) = (
                replica.directory().file("cache/tmp"),
                replica.directory().file("cache/gone"),
            );
            let _ = std::fs::rename(gone, there);
        }
        for name in self.names() {
            self.patch(&name, json!({ "spec": { "suspend": false } })).await;
        }
    }
}
