//! One piece of evidence, where the registry's client has put it.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::sync::Arc;

use crate::domain::artifact::Descriptor;
use crate::domain::bundle::Content;
use crate::domain::trust::{Evidence, MAX_BUNDLE_BYTES, MAX_PAYLOAD_BYTES, MAX_SIGNATURE_CHARS};

/// The layer that is a Sigstore bundle.
pub(super) const SIGSTORE_BUNDLE_LAYER: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The layer that is a simple-signing payload, and the annotation that is its signature.
pub(super) const PAYLOAD_LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub(super) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// A piece of evidence. Its bytes are read when they are checked, and not before: whoever makes further pieces wait would
/// else fill the memory with those of all runs that wait.
#[derive(Debug, Clone)]
pub struct Piece {
    /// None where it is too large to be fetched. It counts, so that the message does not say "no signature".
    content: Option<Arc<dyn Content>>,
    form: Form,
}

/// A piece of evidence that a manifest lists. Nothing else of what the manifest says is kept while pieces are fetched: it
/// may be megabytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// What to fetch.
    pub(super) layer: Descriptor,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    SigstoreBundle,
    /// None where the signature is longer than any.
    SimpleSigning {
        signature: Option<String>,
    },
}

impl Form {
    /// Most bytes that are read of such a piece.
    fn limit(&self) -> u64 {
        let limit = match self {
            Self::SigstoreBundle => MAX_BUNDLE_BYTES,
            Self::SimpleSigning { .. } => MAX_PAYLOAD_BYTES,
        };
        limit as u64
    }
}

impl Listed {
    /// What `layer` lists, if it is evidence.
    pub(super) fn of(mut layer: Descriptor) -> Option<Self> {
        let form = match layer.media_type.as_str() {
            SIGSTORE_BUNDLE_LAYER => Form::SigstoreBundle,
            PAYLOAD_LAYER => {
                let signature = layer.annotations.remove(SIGNATURE).unwrap_or_default();
                let signature = Some(signature).filter(|signature| signature.len() <= MAX_SIGNATURE_CHARS);
                Form::SimpleSigning { signature }
            }
            _ => return None,
        };
        layer.artifact_type = None;
        layer.annotations = BTreeMap::new();
        Some(Self { layer, form })
    }

    /// Whether it is too large to be of any use, so that it need not be fetched.
    pub(super) fn is_too_large(&self) -> bool {
        self.layer.size > self.form.limit() || self.form == Form::SimpleSigning { signature: None }
    }

    /// The piece with what was fetched; as no bytes at all where nothing was, which counts and proves nothing.
    pub(super) fn piece(self, content: Option<Arc<dyn Content>>) -> Piece {
        let form = self.form;
        Piece { content, form }
    }
}

impl Piece {
    /// Reads its bytes into memory.
    pub(super) fn read(&self) -> io::Result<Evidence> {
        let mut bytes = Vec::new();
        if let Some(content) = &self.content {
            content.open()?.take(self.form.limit()).read_to_end(&mut bytes)?;
        }
        Ok(match &self.form {
            Form::SigstoreBundle => Evidence::SigstoreBundle(bytes),
            Form::SimpleSigning { signature } => Evidence::SimpleSigning {
                payload: bytes,
                signature: signature.clone().unwrap_or_default(),
            },
        })
    }
}
