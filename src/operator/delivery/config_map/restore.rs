//! Keeps the last good bundle where it is while runs fail.

use super::error::{ApplyError, ObserveError};
use super::live::{LiveConfigMap, Observed};
use super::state::{ConfigMapStates, LastGood};
use super::target::ConfigMapDelivery;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::operator::delivery::Cluster;

/// What was found and done about the last good bundle.
#[derive(Debug)]
pub enum Restoration {
    /// It was in place.
    InPlace,
    /// That cannot be determined now.
    Undetermined,
    /// It was gone, and was restored.
    Restored,
    /// It is gone, and this is why it could not be restored; none where it is not known or not admitted any more.
    Missing(Option<ApplyError>),
}

impl ConfigMapDelivery {
    /// Makes sure that the ConfigMap still holds what was delivered last. No revision for which `refused` returns true is
    /// restored.
    ///
    /// Where this process has verified nothing yet, the digest in status, `reported`, shows that something else is there,
    /// and never that what is there is good: status can be edited.
    pub async fn restore(
        &self,
        cluster: Cluster<'_>,
        states: &mut ConfigMapStates,
        reported: Option<Digest>,
        refused: impl Fn(&Revision) -> bool,
    ) -> Restoration {
        let live = match self.observe(cluster, states).await {
            Ok(Observed::Ours(live)) => Some(live),
            Ok(Observed::Absent) => None,
            Err(ObserveError::Foreign { .. } | ObserveError::Namesake { .. }) => return Restoration::Missing(None),
            Err(_) => return Restoration::Undetermined,
        };
        let last = states.last_good(self).cloned();
        let verified = states.verified_content(self);
        let expected = verified.or(reported);
        let content = live.as_ref().and_then(|live| live.content);
        if content != expected && content.is_some_and(|content| states.may_hold(self, &content)) {
            // Verified, and newer than the last good bundle. The next run finds it in place.
            return Restoration::Undetermined;
        }
        let serving = live
            .clone()
            .filter(|live| live.content.is_some() && live.content == expected);
        // Labels included, where they are known: without its label the ConfigMap would be out of sight of the watch.
        let is_complete = |last: &LastGood| {
            let live = serving.as_ref();
            live.is_some_and(|live| live.holds(&last.target, &last.revision, &last.digest()))
        };
        match last.filter(|last| !refused(&last.revision) && !is_complete(last)) {
            Some(last) => last.apply_again(cluster, states, live).await,
            None => match serving {
                Some(live) if verified.is_some() => {
                    if states.applied(self) != Some(&live) {
                        states.record(self, live);
                    }
                    Restoration::InPlace
                }
                Some(live) => {
                    states.record_unverified(self, live);
                    Restoration::Undetermined
                }
                None => Restoration::Missing(None),
            },
        }
    }
}

impl LastGood {
    /// Applies the bundle again over what is there.
    async fn apply_again(
        &self,
        cluster: Cluster<'_>,
        states: &mut ConfigMapStates,
        live: Option<LiveConfigMap>,
    ) -> Restoration {
        let observed = live.map_or(Observed::Absent, Observed::Ours);
        let applied = self
            .target
            .apply(cluster, states, &self.revision, &self.bundle, &observed);
        match applied.await {
            Ok(()) => Restoration::Restored,
            Err(error) => Restoration::Missing(Some(error)),
        }
    }
}
