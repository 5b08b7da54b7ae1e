//! What is cached about the ConfigMaps of an object between two runs. Losing it costs requests or delays a restoration,
//! never correctness.

use super::live::LiveConfigMap;
use super::target::ConfigMapDelivery;
use crate::domain::bundle::Bundle;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::domain::trust::{TrustPolicy, Verified};
use crate::operator::identity::ObjectVersion;

/// Most bytes of labels and annotations that are kept of a ConfigMap. Another client may add 256 KiB of annotations.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// Most ConfigMaps of one object of which anything is kept: a spec whose target changes again and again must not fill the
/// memory.
const MAX_STATES: usize = 8;

/// The states of one object's ConfigMaps, by name. A list, because there is hardly ever more than one.
#[derive(Debug, Clone, Default)]
pub struct ConfigMapStates(Vec<ConfigMapState>);

/// The state of one ConfigMap.
#[derive(Debug, Clone)]
struct ConfigMapState {
    name: String,
    /// The ConfigMap as we left it.
    applied: Option<AppliedConfigMap>,
    /// The bundle that was delivered last, to be delivered again where another client removes it.
    last_good: Option<LastGood>,
    /// The digest of the revision that a run of this process found or put there.
    delivered: Option<Digest>,
    /// The bundle of a write that may have taken effect, as far as its response told.
    attempted: Option<Digest>,
    /// Whether it was seen to hold a delivery of another process since we left it.
    is_by_other: bool,
}

/// A ConfigMap as we left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AppliedConfigMap {
    /// The key we wrote.
    pub key: String,
    /// The version we left.
    pub live: LiveConfigMap,
    /// Whether its content was that of a verified bundle, and not only the one that status names.
    pub is_verified: bool,
    /// Whether another client has changed it since.
    pub is_outdated: bool,
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

impl ConfigMapStates {
    /// The names of the ConfigMaps that this process wrote, or found in place. A name that only status knows is none:
    /// status can be edited.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let found = |state: &&ConfigMapState| state.applied.is_some() || state.delivered.is_some();
        self.0.iter().filter(found).map(|state| state.name.as_str())
    }

    /// Whether every ConfigMap is as we left it, where `shows` says whether the watch shows one, by name, in a version.
    #[must_use]
    pub fn is_intact(&self, shows: impl Fn(&str, &ObjectVersion) -> bool) -> bool {
        let applied = |state: &ConfigMapState| {
            let applied = state.applied.as_ref();
            applied.is_none_or(|applied| !applied.is_outdated && shows(&state.name, &applied.live.version))
        };
        self.0.iter().all(applied)
    }

    /// Whether anything is known of `target`.
    pub(super) fn contains(&self, target: &ConfigMapDelivery) -> bool {
        self.of(target).is_some()
    }

    /// The ConfigMap of `target` as we left it with a verified bundle.
    pub(super) fn applied(&self, target: &ConfigMapDelivery) -> Option<&LiveConfigMap> {
        let applied = self.verified(target)?;
        (!applied.is_outdated).then_some(&applied.live)
    }

    /// The bundle that was delivered to `target` last.
    #[must_use]
    pub fn last_good(&self, target: &ConfigMapDelivery) -> Option<&LastGood> {
        let last_good = self.of(target)?.last_good.as_ref();
        last_good.filter(|last| last.target.is_same_place(target))
    }

    /// The digest of the revision that a run of this process found or put at `target`.
    #[must_use]
    pub fn delivered(&self, target: &ConfigMapDelivery) -> Option<Digest> {
        self.of(target)?.delivered
    }

    /// The digest of the verified bundle that `target` held when a run of this process saw it last.
    pub(super) fn verified_content(&self, target: &ConfigMapDelivery) -> Option<Digest> {
        let last_good = self.last_good(target).map(LastGood::digest);
        last_good.or_else(|| self.verified(target)?.live.content)
    }

    /// Remembers how `target` was left with a verified bundle.
    pub(super) fn record(&mut self, target: &ConfigMapDelivery, live: LiveConfigMap) {
        self.record_applied(target, live, true);
    }

    /// Remembers how `target` was found with a bundle that only status speaks for.
    pub(super) fn record_unverified(&mut self, target: &ConfigMapDelivery, live: LiveConfigMap) {
        self.record_applied(target, live, false);
    }

    fn record_applied(&mut self, target: &ConfigMapDelivery, mut live: LiveConfigMap, is_verified: bool) {
        if live.metadata_bytes() > MAX_METADATA_BYTES {
            live.retain_wanted_by(target);
        }
        let state = self.entry(target);
        state.applied = Some(AppliedConfigMap {
            key: target.key.clone(),
            live,
            is_verified,
            is_outdated: false,
        });
        state.attempted = None;
        state.is_by_other = false;
    }

    /// Remembers that another client has changed `target` since we left it.
    pub(super) fn mark_outdated(&mut self, target: &ConfigMapDelivery) {
        if let Some(applied) = &mut self.entry(target).applied {
            applied.is_outdated = true;
        }
    }

    /// Remembers that `target` holds the bundle of `revision`. Another one is not the last good bundle any more: a write
    /// may have taken effect whose response was an error.
    pub(super) fn record_revision(&mut self, target: &ConfigMapDelivery, revision: &Revision) {
        let state = self.entry(target);
        state.delivered = Some(*revision.digest());
        state
            .last_good
            .take_if(|last| last.revision.digest() != revision.digest());
    }

    /// Remembers that `bundle` is about to be written to `target`. Until the response says what became of it, what is
    /// there may be the last good bundle or this one.
    pub(super) fn attempt(&mut self, target: &ConfigMapDelivery, bundle: Digest) {
        self.entry(target).attempted = Some(bundle);
    }

    /// Forgets an attempt that had no effect.
    pub(super) fn forget_attempt(&mut self, target: &ConfigMapDelivery) {
        self.entry(target).attempted = None;
    }

    /// Whether a write of `bundle` to `target` may have taken effect without our knowing.
    pub(super) fn may_hold(&self, target: &ConfigMapDelivery, bundle: &Digest) -> bool {
        self.of(target)
            .is_some_and(|state| state.attempted.as_ref() == Some(bundle))
    }

    /// Remembers that `target` holds a delivery of another process. Returns whether that is new: once until we write it
    /// again, or whoever changes it all the time would keep it from being written. Never where we have delivered.
    pub(super) fn note_other(&mut self, target: &ConfigMapDelivery, live: &LiveConfigMap) -> bool {
        let is_ours = self.last_good(target).is_some();
        let state = self.entry(target);
        let left = state.applied.as_ref().map(|applied| &applied.live.version);
        if is_ours || state.attempted.is_some() || left == Some(&live.version) {
            return false;
        }
        !std::mem::replace(&mut state.is_by_other, true)
    }

    /// Remembers what can be delivered again.
    pub fn record_last_good(&mut self, last_good: LastGood) {
        let target = last_good.target.clone();
        self.entry(&target).last_good = Some(last_good);
    }

    /// Forgets a ConfigMap that was removed.
    pub fn forget(&mut self, name: &str) {
        self.0.retain(|state| state.name != name);
    }

    /// Forgets the last good bundles.
    pub fn forget_last_good(&mut self) {
        self.retain_last_good(|_| false);
    }

    /// Forgets the last good bundles that were admitted by another policy than the object has now. Otherwise the holder
    /// of a key that was removed could have its bundle restored by making every later run fail: moving or removing the
    /// tag is enough.
    pub fn retain_last_good_if_admitted_by(&mut self, trust: &TrustPolicy) {
        self.retain_last_good(|last| {
            trust
                .digest()
                .is_none_or(|now| last.bundle.verification().trust_digest() == Some(now))
        });
    }

    /// Records what a verification says about the last good bundles: `trusts` returns its result for a revision, or none
    /// if it was about another.
    pub fn note_verification(&mut self, trusts: impl Fn(&Revision) -> Option<bool>) {
        for last in self.0.iter_mut().filter_map(|state| state.last_good.as_mut()) {
            if let Some(trusted) = trusts(&last.revision) {
                last.refused = !trusted;
            }
        }
    }

    fn retain_last_good(&mut self, keep: impl Fn(&LastGood) -> bool) {
        for state in &mut self.0 {
            state.last_good = state.last_good.take().filter(&keep);
        }
    }

    fn verified(&self, target: &ConfigMapDelivery) -> Option<&AppliedConfigMap> {
        let applied = self.of(target)?.applied.as_ref();
        applied.filter(|applied| applied.key == target.key && applied.is_verified)
    }

    fn of(&self, target: &ConfigMapDelivery) -> Option<&ConfigMapState> {
        self.0.iter().find(|state| state.name == target.name)
    }

    fn entry(&mut self, target: &ConfigMapDelivery) -> &mut ConfigMapState {
        let known = self.0.iter().position(|state| state.name == target.name);
        let index = known.unwrap_or_else(|| {
            if self.0.len() >= MAX_STATES {
                let unused = self.0.iter().position(|state| state.applied.is_none());
                self.0.remove(unused.unwrap_or_default());
            }
            // A list that grows by itself has room for four of these from the first on.
            self.0.reserve_exact(1);
            self.0.push(ConfigMapState {
                name: target.name.clone(),
                applied: None,
                last_good: None,
                delivered: None,
                attempted: None,
                is_by_other: false,
            });
            self.0.len() - 1
        });
        &mut self.0[index]
    }
}

impl LastGood {
    /// The digest of the bundle.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.bundle.value().facts().digest
    }
}
