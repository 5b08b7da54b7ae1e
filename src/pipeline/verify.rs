//! Verifies a revision: fetches its signatures from the registry, and checks them against the trust policy.
//!
//! Nothing of the image itself is downloaded before. Signatures are looked up in the two places where cosign stores
//! them: among the referrers of the digest (Sigstore bundles, the default since cosign 3) and under the tag
//! `sha256-<hex>.sig` (before that).

use std::io::Read as _;

use super::blocking::{BlockingWork, Interrupted};
use super::ports::{ManifestName, RawManifest, Registry, RegistryError};
use super::reason::{Classify, Disposition, Reason};
use crate::domain::access::RegistryAccess;
use crate::domain::artifact::{self, DOCKER_INDEX, Descriptor, OCI_INDEX};
use crate::domain::bundle::Content;
use crate::domain::digest::Digest;
use crate::domain::reference::Tag;
use crate::domain::revision::ImageRevision;
use crate::domain::source::ImageSource;
use crate::domain::trust::{Evidence, MAX_BUNDLE_BYTES, MAX_PAYLOAD_BYTES, TrustError, TrustPolicy, Verified};

/// Most pieces of evidence that are fetched in one stage.
pub const MAX_EVIDENCE: usize = 50;
/// Most bytes of evidence that are fetched in one stage.
pub const MAX_EVIDENCE_BYTES: u64 = 8 << 20;

/// The layer that is a Sigstore bundle.
const BUNDLE_LAYER: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The layer that is a simple-signing payload, and the annotation that is its signature.
const PAYLOAD_LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Where signatures are looked up, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Sigstore bundles that refer to the digest.
    Bundles,
    /// The image under the tag `sha256-<hex>.sig`.
    Legacy,
}

/// What a stage found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The evidence, in the registry's order.
    pub evidence: Vec<Evidence>,
    /// Why something that is listed could not be fetched. Then `evidence` can still verify the revision, but nothing
    /// can be concluded from what it lacks.
    pub missing: Option<RegistryError>,
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
    let mut known = Vec::new();
    if *policy == TrustPolicy::NotConfigured {
        return Ok(policy.decide(revision, &known)?);
    }
    let mut decision = None;
    for stage in [Stage::Bundles, Stage::Legacy] {
        let gathered = gather(registry, stage, source, revision).await?;
        known.extend(gathered.evidence);
        let (decided, evidence) = decide(blocking, policy, revision, known).await?;
        known = evidence;
        if let Ok(verified) = decided {
            return Ok(verified);
        }
        if let Some(error) = gathered.missing {
            return Err(error.into());
        }
        decision = Some(decided);
    }
    decision
        .unwrap_or_else(|| policy.decide(revision, &known))
        .map_err(VerifyError::Untrusted)
}

/// Decides on a thread of its own: fifty signatures and as many large keys take seconds, and no other object on this
/// thread should wait for that.
async fn decide(
    blocking: &BlockingWork,
    policy: &TrustPolicy,
    revision: &ImageRevision,
    evidence: Vec<Evidence>,
) -> Result<(Result<Verified<ImageRevision>, TrustError>, Vec<Evidence>), VerifyError> {
    let (policy, revision) = (policy.clone(), revision.clone());
    let decision = blocking.run(move |token| {
        let decided = policy.decide_unless_cancelled(&revision, &evidence, token);
        (decided, evidence)
    });
    Ok(decision.await?)
}

/// Fetches the evidence of one stage.
///
/// # Errors
/// [`RegistryError`] where the registry cannot list the evidence.
pub async fn gather<R: Registry>(
    registry: &R,
    stage: Stage,
    source: &ImageSource,
    revision: &ImageRevision,
) -> Result<Gathered, RegistryError> {
    let mut gathering = Gathering {
        registry,
        revision,
        access: source.access(),
        gathered: Gathered::default(),
        bytes: 0,
    };
    match stage {
        Stage::Bundles => gathering.bundles().await?,
        Stage::Legacy => gathering.legacy().await?,
    }
    Ok(gathering.gathered)
}

struct Gathering<'a, R> {
    registry: &'a R,
    revision: &'a ImageRevision,
    access: &'a RegistryAccess,
    gathered: Gathered,
    bytes: u64,
}

impl<R: Registry> Gathering<'_, R> {
    async fn bundles(&mut self) -> Result<(), RegistryError> {
        let ImageRevision { repository, digest, .. } = self.revision;
        let referrers = self.registry.referrers(repository, digest, self.access).await?;
        // The artifact type is ignored: behind a fallback tag, and on registries that made the list from the
        // manifest's configuration, it says nothing.
        let images = referrers
            .iter()
            .filter(|listed| ![OCI_INDEX, DOCKER_INDEX].contains(&listed.media_type.as_str()));
        for listed in images.take(MAX_EVIDENCE) {
            let name = ManifestName::Digest(listed.digest);
            let layers = match self.registry.manifest(repository, &name, self.access).await {
                Ok(manifest) => signature_layers(&listed.digest, &manifest, Some(digest)),
                Err(error) => {
                    if self.note(error) {
                        continue;
                    }
                    break;
                }
            };
            for layer in layers.into_iter().filter(|layer| layer.media_type == BUNDLE_LAYER) {
                if !self.add(&layer, MAX_BUNDLE_BYTES, Evidence::SigstoreBundle).await {
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
        let layers = signature_layers(&manifest.digest, &manifest, None);
        for layer in layers.into_iter().filter(|layer| layer.media_type == PAYLOAD_LAYER) {
            let signature = layer.annotations.get(SIGNATURE).cloned().unwrap_or_default();
            let evidence = |payload| Evidence::SimpleSigning { payload, signature };
            if !self.add(&layer, MAX_PAYLOAD_BYTES, evidence).await {
                break;
            }
        }
        Ok(())
    }

    /// Fetches one piece of evidence; false where no more is to be fetched.
    async fn add(&mut self, layer: &Descriptor, limit: usize, evidence: impl FnOnce(Vec<u8>) -> Evidence) -> bool {
        let spent = self.bytes.saturating_add(layer.size);
        if self.gathered.evidence.len() == MAX_EVIDENCE || layer.size <= limit as u64 && spent > MAX_EVIDENCE_BYTES {
            return false;
        }
        if layer.size > limit as u64 {
            // Counted, so that the message does not say "no signature"; without any bytes it can match no key.
            self.gathered.evidence.push(evidence(Vec::new()));
            return true;
        }
        self.bytes = spent;
        let blob = self.registry.blob(&self.revision.repository, layer, self.access).await;
        match blob.and_then(|content| read(content.as_ref(), limit)) {
            Ok(bytes) => {
                self.gathered.evidence.push(evidence(bytes));
                true
            }
            Err(error) => self.note(error),
        }
    }

    /// Records that a listed piece could not be fetched; false where fetching the next would be no use. The first error
    /// stays: whoever can push to the repository could add broken pieces to hide what is wrong.
    fn note(&mut self, error: RegistryError) -> bool {
        let only_this_piece = matches!(
            error,
            RegistryError::NotFound { .. }
                | RegistryError::TooLarge { .. }
                | RegistryError::DigestMismatch { .. }
                | RegistryError::Protocol { .. }
        );
        self.gathered.missing.get_or_insert(error);
        only_this_piece
    }
}

/// The layers of a manifest that may be signatures; none where it cannot be read or refers to something else. Anyone
/// who can push may list anything as a referrer, so what is listed wrongly is skipped.
fn signature_layers(digest: &Digest, manifest: &RawManifest, subject: Option<&Digest>) -> Vec<Descriptor> {
    match artifact::attachment(digest, &manifest.media_type, &manifest.bytes) {
        Ok((found, layers)) if subject.is_none() || found.as_ref() == subject => layers,
        _ => Vec::new(),
    }
}

fn read(content: &dyn Content, limit: usize) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let read = content
        .open()
        .and_then(|reader| reader.take(limit as u64).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(RegistryError::Storage {
            cause: error.kind().to_string(),
        }),
    }
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
