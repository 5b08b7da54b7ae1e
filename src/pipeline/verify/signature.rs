//! One signature of an image: as a manifest lists it, and as the registry's client has stored it.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::sync::Arc;

use crate::domain::artifact::Descriptor;
use crate::domain::bundle::Content;
use crate::domain::trust::{Evidence, Fault, MAX_BUNDLE_BYTES, MAX_PAYLOAD_BYTES, MAX_SIGNATURE_CHARS};

/// The layer that is a Sigstore bundle.
pub(super) const SIGSTORE_BUNDLE_LAYER: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The layer that is a simple-signing payload, and the annotation that is its signature.
pub(super) const PAYLOAD_LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// A layer that a manifest lists as a signature. Nothing else of what the manifest says is kept while signatures are
/// fetched: it may be megabytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignatureLayer {
    /// What to fetch.
    pub(super) layer: Descriptor,
    format: SignatureFormat,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SignatureFormat {
    SigstoreBundle,
    SimpleSigning { signature: String },
}

/// A signature as far as it was fetched.
#[derive(Debug, Clone)]
pub(super) enum FetchedSignature {
    /// Its bytes are read when they are checked, and not before: whoever makes the check wait would else fill the memory
    /// with the signatures of all runs that wait.
    Stored {
        content: Arc<dyn Content>,
        format: SignatureFormat,
    },
    /// Not worth fetching. It counts, so that the message does not say "no signature".
    Unusable(Fault),
}

impl SignatureFormat {
    /// Most bytes that are read of such a layer.
    fn limit(&self) -> u64 {
        let limit = match self {
            Self::SigstoreBundle => MAX_BUNDLE_BYTES,
            Self::SimpleSigning { .. } => MAX_PAYLOAD_BYTES,
        };
        limit as u64
    }
}

impl SignatureLayer {
    /// What `layer` lists, if it is a signature.
    ///
    /// # Errors
    /// The [`Fault`] of a signature that no key can have made, so that it need not be fetched.
    pub(super) fn of(mut layer: Descriptor) -> Option<Result<Self, Fault>> {
        let format = match layer.media_type.as_str() {
            SIGSTORE_BUNDLE_LAYER => SignatureFormat::SigstoreBundle,
            PAYLOAD_LAYER => match layer.annotations.remove(SIGNATURE) {
                None => return Some(Err(Fault::Format)),
                Some(signature) if signature.len() > MAX_SIGNATURE_CHARS => return Some(Err(Fault::TooLarge)),
                Some(signature) => SignatureFormat::SimpleSigning { signature },
            },
            _ => return None,
        };
        if layer.size > format.limit() {
            return Some(Err(Fault::TooLarge));
        }
        layer.artifact_type = None;
        layer.annotations = BTreeMap::new();
        Some(Ok(Self { layer, format }))
    }

    /// The signature, once its bytes are stored.
    pub(super) fn stored(self, content: Arc<dyn Content>) -> FetchedSignature {
        let format = self.format;
        FetchedSignature::Stored { content, format }
    }
}

impl FetchedSignature {
    /// Reads its bytes into memory.
    pub(super) fn read(&self) -> io::Result<Evidence> {
        let (content, format) = match self {
            Self::Stored { content, format } => (content, format),
            Self::Unusable(fault) => return Ok(Evidence::Unusable(*fault)),
        };
        let mut bytes = Vec::new();
        content.open()?.take(format.limit()).read_to_end(&mut bytes)?;
        Ok(match format {
            SignatureFormat::SigstoreBundle => Evidence::SigstoreBundle(bytes),
            SignatureFormat::SimpleSigning { signature } => Evidence::SimpleSigning {
                payload: bytes,
                signature: signature.clone(),
            },
        })
    }
}
