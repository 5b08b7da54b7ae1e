//! What is cached about a delivery between two runs. All of it can be lost: it saves work and never decides.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::live::LiveConfigMap;
use super::target::ConfigMapDelivery;
use crate::domain::bundle::Bundle;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::domain::trust::{TrustPolicy, Verified};
use crate::operator::identity::ObjectVersion;

/// The state of one object's ConfigMap.
#[derive(Debug, Clone, Default)]
pub struct ConfigMapState {
    /// The ConfigMap as the last run left it.
    pub applied: Option<AppliedConfigMap>,
    /// The bundle that was delivered last, to be delivered again where another client removes it.
    pub last_good: Option<LastGood>,
    /// The digest of the revision that the last good run found or put there.
    pub delivered: Option<Digest>,
}

/// A ConfigMap as we left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedConfigMap {
    /// Its name.
    pub name: String,
    /// The key we wrote.
    pub key: String,
    /// The version we left.
    pub live: LiveConfigMap,
}

/// What was delivered last, with all that is needed to deliver it again.
#[derive(Debug, Clone)]
pub struct LastGood {
    /// Where it went.
    pub target: ConfigMapDelivery,
    /// Where it came from.
    pub revision: Revision,
    /// The bundle, with the verification that admitted it.
    pub bundle: Verified<Bundle>,
    /// Whether the last verification of its revision said that it is not trusted any more.
    pub refused: bool,
}

impl ConfigMapState {
    /// Remembers how `target` was left.
    pub fn record(&mut self, target: &ConfigMapDelivery, live: LiveConfigMap) {
        self.applied = Some(AppliedConfigMap {
            name: target.name.clone(),
            key: target.key.clone(),
            live,
        });
    }

    /// Whether the ConfigMap is as we left it, as far as its watch shows; also where we have left none.
    #[must_use]
    pub fn is_intact(&self, watched: Option<&ObjectMeta>) -> bool {
        self.applied
            .as_ref()
            .is_none_or(|applied| watched.is_some_and(|watched| applied.is_version(watched)))
    }

    /// Forgets the last good bundle where it was admitted by another policy than the object has now. Otherwise the
    /// holder of a key that was removed could have its bundle restored by making every later run fail: moving or
    /// removing the tag is enough.
    pub fn forget_what_is_not_admitted_by(&mut self, trust: &TrustPolicy) {
        let admitted = |last: &LastGood| {
            trust
                .digest()
                .is_none_or(|now| last.bundle.verification().trust_digest() == Some(now))
        };
        self.last_good = self.last_good.take().filter(admitted);
    }

    /// Records what a verification says about the last good bundle: `trusts` returns its result for a revision, or none
    /// if it was about another.
    pub fn note_verification(&mut self, trusts: impl Fn(&Revision) -> Option<bool>) {
        if let Some(last) = &mut self.last_good
            && let Some(trusted) = trusts(&last.revision)
        {
            last.refused = !trusted;
        }
    }
}

impl LastGood {
    /// The digest of the bundle.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.bundle.value().facts().digest
    }
}

impl AppliedConfigMap {
    /// Whether this is the place that `target` names.
    #[must_use]
    pub fn is_at(&self, target: &ConfigMapDelivery) -> bool {
        (&self.name, &self.key) == (&target.name, &target.key)
    }

    /// Whether `watched` is the version that we left.
    #[must_use]
    pub fn is_version(&self, watched: &ObjectMeta) -> bool {
        ObjectVersion::of(watched).is_ok_and(|version| version == self.live.version)
    }
}
