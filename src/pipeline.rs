//! The use cases that every program shares, and the ports they need from the outside.
//!
//! **Architecture invariant:** nothing here knows HTTP, Git, Kubernetes or files. What is outside is asked through a
//! trait in [`ports`], in the words of [`crate::domain`].

pub mod acquire;
pub mod blocking;
mod classify;
#[cfg(any(test, feature = "testing"))]
pub mod in_memory_registry;
pub mod ports;
pub mod reason;
pub mod resolve;
pub mod single_flight;
pub mod verify;

use std::sync::Arc;
use std::time::Instant;

use crate::domain::access::AccessKey;
use crate::domain::bundle::Limits;
use crate::domain::digest::Digest;
use crate::domain::revision::{ImageRevision, Revision};
use crate::domain::source::{Selection, Source};
use crate::domain::trust::{TrustPolicy, Verified};
use acquire::{AcquireError, Acquired};
use blocking::BlockingWork;
use ports::Ports;
use resolve::ResolveError;
use single_flight::{CacheName, CacheObserver, CachedResult, SingleFlight};
use verify::VerifyError;

/// Most answers that are kept of each kind.
const CAPACITY: u64 = 10_000;
/// Most bytes of memory that kept bundles take, about; their content is elsewhere.
const BUNDLES_CAPACITY_BYTES: u64 = 16 << 20;

/// Resolve, verify and acquire, each done once for all objects that ask the same thing.
///
/// Every result is kept under the [`AccessKey`] of whoever earned it, so nothing of one tenant reaches another. A
/// verification is also kept under the fingerprint of the trust policy, and a bundle under that of the policy that
/// admitted it, so it is never stronger or weaker than what its object asked for.
pub struct Pipeline<P> {
    ports: P,
    limits: Limits,
    blocking: BlockingWork,
    resolutions: SingleFlight<(AccessKey, Selection), ImageRevision, ResolveError>,
    verifications: SingleFlight<(AccessKey, Digest, Option<Digest>), Verified<ImageRevision>, VerifyError>,
    bundles: SingleFlight<(AccessKey, Digest, Option<Digest>, u64), Acquired, AcquireError>,
}

impl<P: Ports> Pipeline<P> {
    /// A pipeline that asks `ports`, reads bundles within `limits` and tells `observer` how much work it saves.
    #[must_use]
    pub fn new(ports: P, limits: Limits, observer: &Arc<dyn CacheObserver>) -> Self {
        let weigh = |acquired: &Acquired| u32::try_from(acquired.memory_bytes()).unwrap_or(u32::MAX);
        Self {
            ports,
            limits,
            blocking: BlockingWork::default(),
            resolutions: SingleFlight::new(CAPACITY).observed(CacheName::Resolution, Arc::clone(observer)),
            verifications: SingleFlight::new(CAPACITY).observed(CacheName::Verification, Arc::clone(observer)),
            bundles: SingleFlight::weighed(BUNDLES_CAPACITY_BYTES, weigh)
                .observed(CacheName::Bundle, Arc::clone(observer)),
        }
    }

    /// Which content `source` means, as of `not_before` or later.
    pub async fn resolve(&self, source: &Source, not_before: Instant) -> CachedResult<Revision, ResolveError> {
        let Source::Image(image) = source;
        let key = (image.access().key(image.repository()), image.selection().clone());
        let work = resolve::resolve(self.ports.registry(), image);
        self.resolutions
            .get_since(key, not_before, work)
            .await
            .map(Revision::Image)
    }

    /// Verifies that `revision` satisfies `policy`. What was verified stays verified; a refusal is looked up again.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn verify(
        &self,
        source: &Source,
        revision: &Revision,
        policy: &TrustPolicy,
    ) -> Result<Verified<Revision>, Arc<VerifyError>> {
        let (Source::Image(source), Revision::Image(image)) = (source, revision);
        let access_key = source.access().key(&image.repository);
        let key = (access_key, image.digest, policy.digest().copied());
        let work = verify::verify(self.ports.registry(), source, image, policy, &self.blocking);
        let verified = self
            .verifications
            .get_or_retry(key, single_flight::recent(), |_| true, work);
        Ok(verified.await?.into())
    }

    /// The bundle that a verified revision names, if it has at most `largest` bytes: the most that can be delivered.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub async fn acquire(
        &self,
        source: &Source,
        revision: &Verified<Revision>,
        largest: u64,
    ) -> Result<Acquired, Arc<AcquireError>> {
        let (Source::Image(source), image) = (source, revision.image());
        let access_key = source.access().key(&image.value().repository);
        let trust_digest = image.verification().trust_digest().copied();
        let key = (access_key, image.value().digest, trust_digest, largest);
        let registry = self.ports.registry();
        let work = acquire::acquire(registry, source, &image, self.limits, largest, &self.blocking);
        // The bytes may have made room for others on disk meanwhile.
        let usable = |acquired: &Acquired| acquired.bundle.value().is_available();
        self.bundles
            .get_or_retry(key, single_flight::recent(), usable, work)
            .await
    }
}
