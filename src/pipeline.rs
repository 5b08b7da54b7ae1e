//! The use cases that every program shares, and the ports they need.
//!
//! **Architecture invariant:** nothing here knows HTTP, Git, Kubernetes or files. External systems are reached through
//! a trait in [`ports`], in the terms of [`crate::domain`].

pub mod acquire;
pub mod blocking;
mod classify;
pub mod fair_semaphore;
#[cfg(any(test, feature = "testing"))]
pub mod in_memory_registry;
pub mod ports;
pub mod reason;
pub mod resolve;
pub mod single_flight;
pub mod verify;

use std::sync::Arc;

use crate::domain::access::AccessKey;
use crate::domain::artifact::PolicyManifest;
use crate::domain::bundle::Limits;
use crate::domain::digest::Digest;
use crate::domain::revision::{ImageRevision, Revision};
use crate::domain::source::{ImageSource, Selection, Source};
use crate::domain::trust::{TrustPolicy, Verified};
use acquire::{AcquireError, Acquired};
use blocking::BlockingWork;
use ports::Ports;
use resolve::ResolveError;
use single_flight::{CacheName, CacheObserver, CachedResult, Freshness, SingleFlight};
use verify::VerifyError;

/// Most cached results of each kind.
const CAPACITY: u64 = 10_000;
/// Most bytes of cached manifests, about.
const MANIFESTS_CAPACITY_BYTES: u64 = 16 << 20;
/// Most bytes of memory that cached bundles take, about; their content is on disk.
const BUNDLES_CAPACITY_BYTES: u64 = 16 << 20;

/// Resolve, verify and acquire, each done once for all objects that need the same result.
///
/// Every result is cached under the [`AccessKey`] that obtained it, so nothing of one tenant reaches another. A
/// verification is also cached under the fingerprint of the trust policy, and a bundle under that of the policy that
/// admitted it, so it is never stronger or weaker than what its object requires.
pub struct Pipeline<P> {
    ports: Arc<P>,
    limits: Limits,
    blocking: BlockingWork,
    resolutions: SingleFlight<(AccessKey, Selection), ImageRevision, ResolveError>,
    verifications: SingleFlight<ContentKey, Verified<ImageRevision>, VerifyError>,
    manifests: SingleFlight<ContentKey, Arc<Verified<PolicyManifest>>, AcquireError>,
    /// Also by the largest size that could be delivered, so that what is too large for one object is not refused for
    /// others.
    bundles: SingleFlight<(ContentKey, u64), Acquired, AcquireError>,
}

/// Who may have the content of a digest, and by which trust policy.
type ContentKey = (AccessKey, Digest, Option<Digest>);

impl<P: Ports> Pipeline<P> {
    /// A pipeline over `ports` that reads bundles within `limits` and reports cache hits and misses to `observer`.
    #[must_use]
    pub fn new(ports: P, limits: Limits, observer: &Arc<dyn CacheObserver>) -> Self {
        Self {
            ports: Arc::new(ports),
            limits,
            blocking: BlockingWork::default(),
            resolutions: SingleFlight::new(CAPACITY).observed(CacheName::Resolution, Arc::clone(observer)),
            verifications: SingleFlight::new(CAPACITY).observed(CacheName::Verification, Arc::clone(observer)),
            manifests: SingleFlight::weighed(MANIFESTS_CAPACITY_BYTES, |manifest: &Arc<Verified<PolicyManifest>>| {
                weight(size_of::<PolicyManifest>() + acquire::annotations_bytes(&manifest.value().annotations))
            }),
            bundles: SingleFlight::weighed(BUNDLES_CAPACITY_BYTES, |acquired: &Acquired| {
                weight(acquired.memory_bytes())
            })
            .observed(CacheName::Bundle, Arc::clone(observer)),
        }
    }

    /// The revision that `source` resolves to.
    pub async fn resolve(&self, source: &Source, freshness: Freshness) -> CachedResult<Revision, ResolveError> {
        let Source::Image(image) = source;
        let key = (image.access().key(image.repository()), image.selection().clone());
        let work = || {
            let (ports, image) = (Arc::clone(&self.ports), image.clone());
            async move { resolve::resolve(ports.registry(), &image).await }
        };
        self.resolutions
            .get_fresh(key, &image.access().tenant, freshness, work)
            .await
            .map(Revision::Image)
    }

    /// Verifies that `revision` satisfies `policy`. What was verified stays verified; a refusal is checked again unless it
    /// is as fresh as required.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn verify(
        &self,
        source: &Source,
        revision: &Revision,
        policy: &TrustPolicy,
        freshness: Freshness,
    ) -> Result<Verified<Revision>, Arc<VerifyError>> {
        let (Source::Image(source), Revision::Image(image)) = (source, revision);
        let access_key = source.access().key(&image.repository);
        let key = (access_key, image.digest, policy.digest().copied());
        let work = || {
            let (ports, blocking) = (Arc::clone(&self.ports), self.blocking.clone());
            let (source, image, policy) = (source.clone(), image.clone(), policy.clone());
            async move { verify::verify(ports.registry(), &source, &image, &policy, &blocking).await }
        };
        let verified = self
            .verifications
            .get_or_retry(key, &source.access().tenant, freshness, |_| true, work);
        Ok(verified.await?.into())
    }

    /// The manifest that a verified revision names. It says which bundle is in the image. A failure is as fresh as
    /// required.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub async fn open(
        &self,
        source: &Source,
        revision: &Verified<Revision>,
        freshness: Freshness,
    ) -> Result<Arc<Verified<PolicyManifest>>, Arc<AcquireError>> {
        let (Source::Image(source), image) = (source, revision.image());
        let work = || {
            let (ports, source, image) = (Arc::clone(&self.ports), source.clone(), image.clone());
            async move {
                let manifest = acquire::open(ports.registry(), &source, &image).await?;
                Ok(Arc::new(manifest))
            }
        };
        self.manifests
            .get_or_retry(
                content_key(source, &image),
                &source.access().tenant,
                freshness,
                |_| true,
                work,
            )
            .await
    }

    /// The bundle that a verified revision names, if it has at most `largest` bytes: the most that can be delivered. A
    /// failure is as fresh as required.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub async fn acquire(
        &self,
        source: &Source,
        revision: &Verified<Revision>,
        largest: u64,
        freshness: Freshness,
    ) -> Result<Acquired, Arc<AcquireError>> {
        let manifest = self.open(source, revision, freshness).await?;
        let (Source::Image(source), image) = (source, revision.image());
        let work = || {
            let (ports, blocking, limits) = (Arc::clone(&self.ports), self.blocking.clone(), self.limits);
            let (source, repository) = (source.clone(), image.value().repository.clone());
            let manifest = Arc::unwrap_or_clone(manifest);
            async move {
                let (registry, access) = (ports.registry(), source.access());
                acquire::acquire(registry, &repository, access, manifest, limits, largest, &blocking).await
            }
        };
        // The blob may have been evicted from disk meanwhile.
        let usable = |acquired: &Acquired| acquired.bundle.value().is_available();
        self.bundles
            .get_or_retry(
                (content_key(source, &image), largest),
                &source.access().tenant,
                freshness,
                usable,
                work,
            )
            .await
    }
}

/// The weight of an entry that takes about so many bytes, its key included.
fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes.saturating_add(size_of::<ContentKey>())).unwrap_or(u32::MAX)
}

fn content_key(source: &ImageSource, image: &Verified<ImageRevision>) -> ContentKey {
    (
        source.access().key(&image.value().repository),
        image.value().digest,
        image.verification().trust_digest().copied(),
    )
}
