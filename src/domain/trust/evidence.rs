//! Signatures in the two forms that cosign writes, read down to "these bytes, this signature, this digest".
//!
//! What is read here is not yet trusted: only a key of the policy can say that the bytes are its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sigstore_verify::types::pae;

use super::MAX_SIGNATURE_CHECKS;
use crate::domain::digest::Digest;
use crate::domain::strict_json;

/// Largest simple-signing payload that is read, in bytes; real ones have about 250.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;
/// Largest Sigstore bundle that is read, in bytes; real ones have 1 to 10 KiB.
pub const MAX_BUNDLE_BYTES: usize = 1 << 20;
/// Longest signature that is read, in base64 characters; RSA of 8192 bits has 1368.
pub const MAX_SIGNATURE_CHARS: usize = 4096;

/// What cosign signs images as. Any other predicate is a statement *about* the image (an SBOM, a scan), and whoever may
/// make those may not thereby release it.
pub const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// The payload's type in releases of cosign before 3.
const LEGACY_TYPE: &str = "cosign container image signature";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The two ways to write version 0.3 of the Sigstore bundle's media type.
const BUNDLE_TYPES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
];

/// One piece of evidence, as the registry gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A legacy cosign signature: the simple-signing payload and the base64 text of the layer's annotation.
    SimpleSigning {
        /// The layer's bytes.
        payload: Vec<u8>,
        /// `dev.cosignproject.cosign/signature`.
        signature: String,
    },
    /// A Sigstore bundle v0.3 in JSON.
    SigstoreBundle(Vec<u8>),
    /// Evidence that was not fetched, because it cannot count.
    Unusable(Fault),
}

/// Why one piece of evidence does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    /// Over [`MAX_PAYLOAD_BYTES`] or [`MAX_BUNDLE_BYTES`].
    #[error("too large")]
    TooLarge,
    /// Not the JSON that its media type promises, or ambiguous JSON.
    #[error("unreadable")]
    Unreadable,
    /// Signed by a certificate instead of a key.
    #[error("made with a certificate, not with a key")]
    Certificate,
    /// Another format: a bare message signature, another DSSE payload, no signature or more than one.
    #[error("in a format that 'cosign sign' does not write for images")]
    Format,
    /// An attestation, not a signature.
    #[error("an attestation, not a signature of the image")]
    Attestation,
    /// For another digest.
    #[error("for another digest")]
    OtherDigest,
    /// Readable and for this digest, but [`MAX_SIGNATURE_CHECKS`] were spent before.
    #[error("left unchecked after {MAX_SIGNATURE_CHECKS} checks")]
    Unchecked,
    /// Readable and for this digest, but no key of the policy made it.
    #[error("not by a key of the trust policy")]
    OtherKey,
}

/// What a signer is said to have signed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The bytes under the signature.
    pub(super) message: Vec<u8>,
    /// The signature, decoded.
    pub(super) signature: Vec<u8>,
}

impl Evidence {
    /// The claim that this evidence makes about `digest`.
    pub(super) fn claim(&self, digest: &Digest) -> Result<Claim, Fault> {
        match self {
            Self::SimpleSigning { payload, signature } => simple_signing(payload, signature, digest),
            Self::SigstoreBundle(json) => sigstore_bundle(json, digest),
            Self::Unusable(fault) => Err(*fault),
        }
    }
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

/// `identity.docker-reference` is left out: it repeats what the signer typed, cosign does not check it, and mirrors and
/// promotions between repositories would fail if we did. The digest alone says what was signed.
#[derive(Deserialize)]
struct Critical {
    image: SignedImage,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct SignedImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

fn simple_signing(payload: &[u8], signature: &str, digest: &Digest) -> Result<Claim, Fault> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(Fault::TooLarge);
    }
    let Payload { critical } = strict_json::parse(payload).map_err(|_| Fault::Unreadable)?;
    if critical.kind != LEGACY_TYPE && critical.kind != SIGN_PREDICATE {
        return Err(Fault::Format);
    }
    if critical.image.digest.parse() != Ok(*digest) {
        return Err(Fault::OtherDigest);
    }
    Ok(Claim {
        message: payload.to_vec(),
        signature: decode_signature(signature)?,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SigstoreBundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
}

/// Only a key's bundle has `publicKey`. Its hint says which key to try; all keys of the policy are tried anyway.
///
/// Entries of a transparency log are not read: an authority that is a key is trusted by that key alone, as with Flux
/// and with cosign's `--insecure-ignore-tlog`. They matter if the signer is a certificate that lives for ten
/// minutes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<serde::de::IgnoredAny>,
    certificate: Option<serde::de::IgnoredAny>,
    x509_certificate_chain: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: SubjectDigest,
}

/// A subject may carry digests of other algorithms too; they do not name an image here.
#[derive(Deserialize)]
struct SubjectDigest {
    sha256: Option<String>,
}

fn sigstore_bundle(json: &[u8], digest: &Digest) -> Result<Claim, Fault> {
    if json.len() > MAX_BUNDLE_BYTES {
        return Err(Fault::TooLarge);
    }
    let bundle: SigstoreBundle = strict_json::parse(json).map_err(|_| Fault::Unreadable)?;
    if !BUNDLE_TYPES.contains(&bundle.media_type.as_str()) {
        return Err(Fault::Format);
    }
    let material = bundle.verification_material;
    if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
        return Err(Fault::Certificate);
    }
    let (Some(_), Some(envelope)) = (material.public_key, bundle.dsse_envelope) else {
        return Err(Fault::Format);
    };
    let [signature] = envelope.signatures.as_slice() else {
        return Err(Fault::Format);
    };
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(Fault::Format);
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| Fault::Unreadable)?;
    check_statement(&payload, digest)?;
    Ok(Claim {
        message: pae(PAYLOAD_TYPE, &payload),
        signature: decode_signature(&signature.sig)?,
    })
}

fn check_statement(payload: &[u8], digest: &Digest) -> Result<(), Fault> {
    let statement: Statement = strict_json::parse(payload).map_err(|_| Fault::Unreadable)?;
    if statement.kind != STATEMENT_TYPE {
        return Err(Fault::Format);
    }
    if statement.predicate_type != SIGN_PREDICATE {
        return Err(Fault::Attestation);
    }
    let named = |subject: &Subject| {
        let hex = subject.digest.sha256.as_deref().unwrap_or_default();
        format!("sha256:{hex}").parse() == Ok(*digest)
    };
    if statement.subject.iter().any(named) {
        Ok(())
    } else {
        Err(Fault::OtherDigest)
    }
}

fn decode_signature(base64: &str) -> Result<Vec<u8>, Fault> {
    if base64.len() > MAX_SIGNATURE_CHARS {
        return Err(Fault::TooLarge);
    }
    STANDARD.decode(base64).map_err(|_| Fault::Unreadable)
}

#[cfg(test)]
mod tests;
