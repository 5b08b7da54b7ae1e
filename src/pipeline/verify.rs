//! Verifies a revision: fetches its signatures from the registry, and checks them against the trust policy.
//!
//! Nothing of the image itself is downloaded before. Signatures are looked up in the two places where cosign stores
//! them: among the referrers of the digest (Sigstore bundles, the default since cosign 3) and under the tag
//! `sha256-<hex>.sig` (before that).

mod signature;

use self::signature::{FetchedSignature, PAYLOAD_LAYER, SIGSTORE_BUNDLE_LAYER, SignatureLayer};
use super::blocking::{BlockingWork, Interrupted};
use super::ports::{ManifestName, RawManifest, Registry, RegistryError};
use super::reason::{Classify, Disposition, Reason};
use crate::domain::access::{RegistryAccess, Tenant};
use crate::domain::artifact::{self, DOCKER_INDEX, OCI_INDEX};
use crate::domain::digest::Digest;
use crate::domain::reference::Tag;
use crate::domain::revision::ImageRevision;
use crate::domain::source::ImageSource;
use crate::domain::trust::{Fault, TrustError, TrustPolicy, Verified};

/// Most signatures that are fetched in one stage.
const MAX_SIGNATURES: usize = 50;
/// Most bytes of signatures that are fetched in one stage.
const MAX_SIGNATURE_BYTES: u64 = 8 << 20;

/// Where signatures are looked for, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// Sigstore bundles that refer to the digest.
    SigstoreBundles,
    /// The image under the tag `sha256-<hex>.sig`.
    Legacy,
}

/// What a stage found.
#[derive(Debug, Clone, Default)]
struct FetchedSignatures {
    /// The signatures, in the registry's order.
    signatures: Vec<FetchedSignature>,
    /// Why something that is listed could not be fetched. Then `signatures` can still verify the revision, but nothing
    /// can be concluded from what they lack.
    missing: Option<RegistryError>,
}

/// Why a revision is not verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Signatures could not be looked up, so nothing is known about them.
    #[error("signatures could not be looked up: {0}")]
    Lookup(#[from] RegistryError),
    /// The policy is not satisfied.
    #[error(transparent)]
    Untrusted(#[from] TrustError),
    /// The thread that checked the signatures did not complete.
    #[error("checking the signatures was interrupted")]
    Interrupted(#[from] Interrupted),
}

/// Verifies `revision` against `policy`.
///
/// # Errors
/// [`VerifyError`]. "The lookup failed" is never taken for "there is no signature", nor for a reason to accept another
/// form of signature.
pub async fn verify<R: Registry>(
    registry: &R,
    source: &ImageSource,
    revision: &ImageRevision,
    policy: &TrustPolicy,
    blocking: &BlockingWork,
) -> Result<Verified<ImageRevision>, VerifyError> {
    let mut verdict = policy.decide(revision, &[]);
    if *policy == TrustPolicy::NotConfigured {
        return Ok(verdict?);
    }
    let mut signatures = Vec::new();
    for stage in [Stage::SigstoreBundles, Stage::Legacy] {
        let fetched = fetch(registry, stage, source, revision).await?;
        signatures.extend(fetched.signatures);
        let decision = decide(blocking, &source.access().tenant, policy, revision, signatures).await?;
        (verdict, signatures) = (decision.verdict, decision.signatures);
        if verdict.is_ok() {
            break;
        }
        if let Some(error) = fetched.missing.or(decision.unreadable) {
            return Err(error.into());
        }
    }
    Ok(verdict?)
}

/// What the signatures so far come to.
struct Decision {
    verdict: Result<Verified<ImageRevision>, TrustError>,
    /// Why a signature could not be read.
    unreadable: Option<RegistryError>,
    signatures: Vec<FetchedSignature>,
}

/// Reads the signatures and decides on a thread of its own: fifty signatures and as many large keys take seconds, which no
/// other object on this thread should wait for. So few of these run at one time that all their signatures fit into memory.
async fn decide(
    blocking: &BlockingWork,
    tenant: &Tenant,
    policy: &TrustPolicy,
    revision: &ImageRevision,
    signatures: Vec<FetchedSignature>,
) -> Result<Decision, Interrupted> {
    let (policy, revision) = (policy.clone(), revision.clone());
    let decide = move |token: &_| {
        let (mut evidence, mut unreadable) = (Vec::with_capacity(signatures.len()), None);
        for signature in &signatures {
            match signature.read() {
                Ok(read) => evidence.push(read),
                Err(error) => unreadable = Some(error.kind().to_string()),
            }
        }
        Decision {
            verdict: policy.decide_unless_cancelled(&revision, &evidence, token),
            unreadable: unreadable.map(|cause| RegistryError::Storage { cause }),
            signatures,
        }
    };
    blocking.run(tenant, decide).await
}

/// Fetches the signatures of one stage.
///
/// # Errors
/// [`RegistryError`] if the registry cannot list them.
async fn fetch<R: Registry>(
    registry: &R,
    stage: Stage,
    source: &ImageSource,
    revision: &ImageRevision,
) -> Result<FetchedSignatures, RegistryError> {
    let mut fetcher = SignatureFetcher {
        registry,
        revision,
        access: source.access(),
        fetched: FetchedSignatures::default(),
        bytes: 0,
    };
    match stage {
        Stage::SigstoreBundles => fetcher.sigstore_bundles().await?,
        Stage::Legacy => fetcher.legacy().await?,
    }
    Ok(fetcher.fetched)
}

struct SignatureFetcher<'a, R> {
    registry: &'a R,
    revision: &'a ImageRevision,
    access: &'a RegistryAccess,
    fetched: FetchedSignatures,
    bytes: u64,
}

impl<R: Registry> SignatureFetcher<'_, R> {
    async fn sigstore_bundles(&mut self) -> Result<(), RegistryError> {
        let ImageRevision { repository, digest, .. } = self.revision;
        let referrers = self.registry.referrers(repository, digest, self.access).await?;
        // The artifact type is ignored: behind a fallback tag, and on registries that made the list from the
        // manifest's configuration, it says nothing.
        let images = referrers
            .into_iter()
            .filter(|listed| ![OCI_INDEX, DOCKER_INDEX].contains(&listed.media_type.as_str()));
        let images: Vec<Digest> = images.map(|listed| listed.digest).take(MAX_SIGNATURES).collect();
        for image in images {
            let name = ManifestName::Digest(image);
            let listed = match self.registry.manifest(repository, &name, self.access).await {
                Ok(manifest) => list(manifest, Some(digest), SIGSTORE_BUNDLE_LAYER),
                Err(error) => {
                    if self.note(error) {
                        continue;
                    }
                    break;
                }
            };
            for signature in listed {
                if !self.add(signature).await {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn legacy(&mut self) -> Result<(), RegistryError> {
        let ImageRevision { repository, digest, .. } = self.revision;
        let name = ManifestName::Tag(Tag::cosign_signatures(digest));
        let manifest = match self.registry.manifest(repository, &name, self.access).await {
            Ok(manifest) => manifest,
            Err(RegistryError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for signature in list(manifest, None, PAYLOAD_LAYER) {
            if !self.add(signature).await {
                break;
            }
        }
        Ok(())
    }

    /// Fetches one signature; false if no more are to be fetched.
    async fn add(&mut self, listed: Result<SignatureLayer, Fault>) -> bool {
        if self.fetched.signatures.len() == MAX_SIGNATURES {
            return false;
        }
        let listed = match listed {
            Ok(listed) => listed,
            Err(fault) => {
                self.fetched.signatures.push(FetchedSignature::Unusable(fault));
                return true;
            }
        };
        let spent = self.bytes.saturating_add(listed.layer.size);
        if spent > MAX_SIGNATURE_BYTES {
            return false;
        }
        self.bytes = spent;
        let blob = self
            .registry
            .blob(&self.revision.repository, &listed.layer, self.access);
        match blob.await {
            Ok(content) => {
                self.fetched.signatures.push(listed.stored(content));
                true
            }
            Err(error) => self.note(error),
        }
    }

    /// Records that a listed signature could not be fetched; false if fetching the next would be no use. The first error
    /// stays: whoever can push to the repository could add broken signatures to hide what is wrong.
    fn note(&mut self, error: RegistryError) -> bool {
        let only_this_one = matches!(
            error,
            RegistryError::NotFound { .. }
                | RegistryError::TooLarge { .. }
                | RegistryError::DigestMismatch { .. }
                | RegistryError::Protocol { .. }
        );
        self.fetched.missing.get_or_insert(error);
        only_this_one
    }
}

/// The signatures that a manifest lists in layers of this type; none if it cannot be read or refers to something else.
/// Anyone who can push may list anything as a referrer, so what is listed wrongly is passed over.
fn list(manifest: RawManifest, subject: Option<&Digest>, media_type: &str) -> Vec<Result<SignatureLayer, Fault>> {
    let RawManifest {
        digest,
        media_type: header,
        bytes,
    } = manifest;
    let layers = match artifact::attachment(&digest, &header, &bytes) {
        Ok((found, layers)) if subject.is_none() || found.as_ref() == subject => layers,
        _ => Vec::new(),
    };
    let layers = layers.into_iter().filter(|layer| layer.media_type == media_type);
    layers.filter_map(SignatureLayer::of).collect()
}

impl Classify for VerifyError {
    fn reason(&self) -> Reason {
        match self {
            Self::Untrusted(error) => error.reason(),
            Self::Interrupted(_) => Reason::Internal,
            Self::Lookup(error) => match error {
                RegistryError::Unauthorized { .. }
                | RegistryError::Denied { .. }
                | RegistryError::RateLimited { .. }
                | RegistryError::Tls { .. }
                | RegistryError::AddressRefused { .. }
                | RegistryError::NotAllowed { .. }
                | RegistryError::DigestMismatch { .. }
                | RegistryError::Storage { .. }
                | RegistryError::MissingSystemCertificates
                | RegistryError::TransportSettings { .. } => error.reason(),
                RegistryError::NotFound { .. }
                | RegistryError::Unavailable { .. }
                | RegistryError::Unreachable { .. }
                | RegistryError::TooLarge { .. }
                | RegistryError::Protocol { .. } => Reason::VerificationUnavailable,
            },
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::Untrusted(error) => error.disposition(),
            Self::Interrupted(_) => Disposition::Retry,
            Self::Lookup(_) if self.reason() == Reason::VerificationUnavailable => Disposition::Retry,
            Self::Lookup(error) => error.disposition(),
        }
    }
}

impl Classify for TrustError {
    fn reason(&self) -> Reason {
        match self {
            Self::Unsigned { .. } => Reason::Unsigned,
            Self::Mismatch { .. } => Reason::SignatureMismatch,
            Self::Cancelled => Reason::Internal,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            // In a CI pipeline the signature follows the push by seconds.
            Self::Unsigned { .. } | Self::Cancelled => Disposition::Retry,
            Self::Mismatch { .. } => Disposition::Stalled,
        }
    }
}

#[cfg(test)]
mod tests;
