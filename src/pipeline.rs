//! The use cases that every program shares, and the ports they need from the outside.
//!
//! **Architecture invariant:** nothing here knows HTTP, Git, Kubernetes or files. What is outside is asked through a
//! trait in [`ports`], in the words of [`crate::domain`].

pub mod acquire;
mod classify;
pub mod failure;
pub mod memory;
pub mod ports;
pub mod resolve;
pub mod shared;
pub mod verify;

use std::sync::Arc;
use std::time::Instant;

use crate::domain::access::{Access, Scope};
use crate::domain::bundle::Limits;
use crate::domain::digest::Digest;
use crate::domain::revision::Revision;
use crate::domain::source::{Selection, Source};
use crate::domain::trust::{TrustPolicy, Verified};
use acquire::{AcquireError, Acquired};
use ports::Registry;
use resolve::ResolveError;
use shared::{Answer, Question, Shared, SharingObserver};
use verify::VerifyError;

/// Most answers that are kept of each kind.
const CAPACITY: u64 = 10_000;
/// Most bytes of file lists that are kept, about.
const FACTS_CAPACITY_BYTES: u64 = 16 << 20;

/// Resolve, verify and acquire, each done once for all objects that ask the same thing.
///
/// Every answer is kept under the [`Scope`] of whoever earned it, so nothing of one tenant reaches another; a verdict is
/// also kept under the fingerprint of the trust policy, and a bundle under that of the policy that admitted it, so a
/// proof is never stronger or weaker than what its object asked for.
pub struct Pipeline<R> {
    registry: R,
    limits: Limits,
    resolutions: Shared<(Scope, Selection), Revision, ResolveError>,
    verdicts: Shared<(Scope, Digest, Option<Digest>), Verified<Revision>, VerifyError>,
    bundles: Shared<(Scope, Digest, Option<Digest>), Acquired, AcquireError>,
}

impl<R: Registry> Pipeline<R> {
    /// A pipeline that asks `registry`, reads bundles within `limits` and tells `observer` how much work it saves.
    #[must_use]
    pub fn new(registry: R, limits: Limits, observer: &Arc<dyn SharingObserver>) -> Self {
        let weigh = |acquired: &Acquired| {
            let files = &acquired.bundle.value().facts().files;
            u32::try_from(files.iter().map(|file| file.len() + 32).sum::<usize>() + 512).unwrap_or(u32::MAX)
        };
        Self {
            registry,
            limits,
            resolutions: Shared::new(CAPACITY).watched(Question::Resolution, Arc::clone(observer)),
            verdicts: Shared::new(CAPACITY).watched(Question::Verification, Arc::clone(observer)),
            bundles: Shared::weighed(FACTS_CAPACITY_BYTES, weigh).watched(Question::Bundle, Arc::clone(observer)),
        }
    }

    /// Which content `source` means, as of `not_before` or later.
    pub async fn resolve(
        &self,
        source: &Source,
        access: &Access,
        not_before: Instant,
    ) -> Answer<Revision, ResolveError> {
        let key = (access.scope(source.repository()), source.selection().clone());
        self.resolutions
            .fresh(key, not_before, resolve::resolve(&self.registry, source, access))
            .await
    }

    /// Proves that `revision` satisfies `policy`. A proof once found holds; its absence is asked for again.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn verify(
        &self,
        revision: &Revision,
        policy: &TrustPolicy,
        access: &Access,
    ) -> Result<Verified<Revision>, Arc<VerifyError>> {
        let key = (
            access.scope(&revision.repository),
            revision.digest,
            policy.digest().copied(),
        );
        let work = verify::verify(&self.registry, revision, policy, access);
        self.verdicts.settled(key, shared::recent(), |_| true, work).await
    }

    /// The bundle that a verified revision names.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub async fn acquire(&self, revision: &Verified<Revision>, access: &Access) -> Result<Acquired, Arc<AcquireError>> {
        let Revision { repository, digest, .. } = revision.value();
        let key = (
            access.scope(repository),
            *digest,
            revision.proof().trust_digest().copied(),
        );
        let work = acquire::acquire(&self.registry, revision, access, self.limits);
        // The bytes may have made room for others on disk meanwhile.
        let usable = |acquired: &Acquired| acquired.bundle.value().is_available();
        self.bundles.settled(key, shared::recent(), usable, work).await
    }
}
