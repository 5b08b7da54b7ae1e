//! What the steps of one run work with.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::time::sleep;

use crate::operator::api::spec::PolicyImage;
use crate::operator::delivery::config_map::{ConfigMapStates, Restoration};
use crate::operator::delivery::{Cluster, ConfigMapDelivery, is_intact};
use crate::operator::identity::ObjectKey;
use crate::operator::slot::Slot;
use crate::pipeline::Pipeline;
use crate::pipeline::ports::Ports;

/// The first and the longest interval at which a run that waits checks its ConfigMaps.
const RESTORATION_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the steps of one run work with.
pub struct RunContext<'a, P> {
    /// The object, as its watch shows it.
    pub object: &'a PolicyImage,
    /// The same object, by namespace, name and UID.
    pub key: &'a ObjectKey,
    /// What the watch of PolicyImages shows.
    pub policy_images: &'a Store<PolicyImage>,
    /// The cluster.
    pub cluster: Cluster<'a>,
    /// The use cases.
    pub pipeline: &'a Pipeline<P>,
    /// The slot of the run.
    pub slot: &'a mut Slot,
    /// What is known of the ConfigMaps. Changed at once where something is found or written, because the deadline can
    /// end a run anywhere.
    pub config_maps: &'a mut ConfigMapStates,
}

impl<'a, P: Ports> RunContext<'a, P> {
    /// Waits for what `work` does with the pipeline, without the slot. ConfigMaps that another client changes meanwhile
    /// are restored: how long the wait takes is up to a registry.
    ///
    /// Whoever changes one again and again has it restored less and less often.
    pub async fn wait_for<F: Future>(&mut self, work: impl FnOnce(&'a Pipeline<P>) -> F) -> F::Output {
        // Boxed, so that the caller's future stays small.
        let mut work = Box::pin(work(self.pipeline));
        let (mut pause, longest) = RESTORATION_PAUSE;
        loop {
            let changed = until_changed(self.cluster, self.key, self.config_maps, pause);
            let wait = async {
                tokio::select! {
                    output = &mut work => Some(output),
                    () = changed => None,
                }
            };
            if let Some(output) = self.slot.release_during(wait).await {
                return output;
            }
            if self.is_current() {
                self.restore_changed().await;
            }
            pause = longest.min(pause * 2);
        }
    }

    /// Restores what another client changed, before any response of a registry: that may take long, and its result is no
    /// reason to leave OPA with something else meanwhile. Nothing is restored that the last verification refused. Where
    /// this fails, the run reports it.
    pub async fn restore_changed(&mut self) {
        let Some(target) = self.recorded_target() else {
            return;
        };
        let is_trusted = self.config_maps.last_good(&target).is_some_and(|last| !last.refused);
        if is_trusted
            && let Restoration::Restored = target.restore(self.cluster, self.config_maps, None, |_| false).await
        {
            tracing::info!(config_map = target.name, "restored what another client changed");
        }
    }

    /// Whether the watch shows the object still, with the spec of this run. One that was deleted, suspended or changed
    /// meanwhile may not want its last good bundle back.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let shown = self
            .policy_images
            .get(&ObjectRef::new(self.key.name()).within(self.key.namespace()));
        let same = |shown: &ObjectMeta| {
            let ours = &self.object.metadata;
            (&shown.uid, shown.generation) == (&ours.uid, ours.generation) && shown.deletion_timestamp.is_none()
        };
        shown.is_some_and(|shown| same(&shown.metadata))
    }

    /// Where status says that the last good bundle is; none where nothing was delivered yet.
    #[must_use]
    pub fn recorded_target(&self) -> Option<ConfigMapDelivery> {
        let status = self.object.status.as_ref()?;
        status.bundle.as_ref()?;
        ConfigMapDelivery::recorded(self.key.clone(), status.delivery.as_ref()?)
    }
}

/// Waits for the watch to show one of the ConfigMaps not as we left it.
async fn until_changed(cluster: Cluster<'_>, key: &ObjectKey, config_maps: &ConfigMapStates, pause: Duration) {
    sleep(pause).await;
    while is_intact(cluster, key.namespace(), config_maps) {
        sleep(pause).await;
    }
}
