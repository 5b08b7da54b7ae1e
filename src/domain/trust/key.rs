//! Public keys as `cosign generate-key-pair` and `openssl` write them.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha512};
use sigstore_verify::crypto::{KeyAlgorithm, SigningScheme, VerificationKey};
use sigstore_verify::types::{DerPublicKey, SignatureBytes};

use crate::domain::digest::Digest;

/// Largest PEM text that is read, in bytes.
pub const MAX_PEM_BYTES: usize = 64 << 10;
/// Most keys in one PEM text, and most keys of one authority.
pub const MAX_KEYS: usize = 16;

/// A public key that can verify: ECDSA on P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519. Clones share the
/// parsed key.
#[derive(Clone)]
pub struct PublicKey(Arc<Parsed>);

struct Parsed {
    algorithm: KeyAlgorithm,
    spki: DerPublicKey,
    /// The key itself without its wrapping: one key has one such value, though an RSA key has two valid wrappings.
    raw: Vec<u8>,
    /// The key in each of its schemes.
    verifiers: Vec<VerificationKey>,
    /// The key as a point, if it is one of Ed25519.
    point: Option<VerifyingKey>,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.spki.as_bytes() == other.0.spki.as_bytes()
    }
}

impl Eq for PublicKey {}

/// Why a text is not a list of public keys. Messages never repeat it: it may hold a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Over [`MAX_PEM_BYTES`].
    #[error("larger than 64 KiB, which no list of public keys is")]
    LimitSize,
    /// Over [`MAX_KEYS`].
    #[error("more than 16 keys")]
    LimitKeys,
    /// No PEM block.
    #[error("no PEM block; expected '-----BEGIN PUBLIC KEY-----', as in 'cosign.pub'")]
    Empty,
    /// A private key.
    #[error("a private key instead of a public one")]
    PrivateKey,
    /// A certificate.
    #[error("a certificate instead of a public key")]
    Certificate,
    /// Another kind of PEM block.
    #[error("a PEM block that is not a 'PUBLIC KEY'")]
    OtherBlock,
    /// Text outside of blocks, a block without end, or content that is not base64.
    #[error("line {line} is not PEM; expected only '-----BEGIN PUBLIC KEY-----' blocks")]
    ParsePem {
        /// The first line that does not fit, counted from 1.
        line: usize,
    },
    /// The block is no key, or one that is not supported.
    #[error(
        "key {position} cannot be used; supported are ECDSA P-256 and P-384, RSA of 2048 to 8192 bits, and Ed25519"
    )]
    Unsupported {
        /// Which key of the text, counted from 1.
        position: usize,
    },
}

impl PublicKey {
    /// Reads 1 to [`MAX_KEYS`] PEM blocks `PUBLIC KEY` (a `SubjectPublicKeyInfo`, RFC 7468 section 13).
    ///
    /// # Errors
    /// [`PublicKeyError`]. One bad key refuses the whole text: a key left out in silence would be a signer left out.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, PublicKeyError> {
        if text.len() > MAX_PEM_BYTES {
            return Err(PublicKeyError::LimitSize);
        }
        let blocks = blocks(text)?;
        if blocks.is_empty() {
            return Err(PublicKeyError::Empty);
        }
        if blocks.len() > MAX_KEYS {
            return Err(PublicKeyError::LimitKeys);
        }
        (1..)
            .zip(blocks)
            .map(|(position, der)| Self::from_der(der).ok_or(PublicKeyError::Unsupported { position }))
            .collect()
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`: what `openssl pkey -pubin -outform der | sha256sum` prints.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(self.0.spki.as_bytes())
    }

    /// Whether both are the same key, however each is wrapped.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.algorithm == other.0.algorithm && self.0.raw == other.0.raw
    }

    /// Whether `signature` is this key's signature over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        if let Some(point) = &self.0.point
            && verifies_prehashed(point, message, signature)
        {
            return true;
        }
        let signature = SignatureBytes::from_bytes(signature);
        let mut verifiers = self.0.verifiers.iter();
        verifiers.any(|key| key.verify(message, &signature).is_ok())
    }

    fn from_der(der: Vec<u8>) -> Option<Self> {
        let spki = DerPublicKey::new(der);
        let algorithm = KeyAlgorithm::from_spki(&spki).ok()?;
        let schemes = schemes(algorithm);
        let verifiers = schemes
            .iter()
            .map(|scheme| VerificationKey::from_spki_with_scheme(&spki, *scheme).ok())
            .collect::<Option<Vec<_>>>()?;
        let raw = verifiers.first()?.as_bytes().to_vec();
        sigstore_verify::crypto::validate_raw_public_key(*schemes.first()?, &raw).ok()?;
        let point = ed25519(&raw).filter(|_| algorithm == KeyAlgorithm::Ed25519);
        let whole = match algorithm {
            KeyAlgorithm::EcdsaP256 => raw.len() == 65,
            KeyAlgorithm::EcdsaP384 => raw.len() == 97,
            KeyAlgorithm::Ed25519 => point.is_some(),
            _ => true,
        };
        whole.then(|| {
            Self(Arc::new(Parsed {
                algorithm,
                spki,
                raw,
                verifiers,
                point,
            }))
        })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({:?} {})", self.0.algorithm, self.fingerprint())
    }
}

/// The schemes that cosign signs with, by key. P-384 has two: releases before 3 hash with SHA-256 whatever the curve.
fn schemes(algorithm: KeyAlgorithm) -> &'static [SigningScheme] {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => &[SigningScheme::EcdsaP256Sha256],
        KeyAlgorithm::EcdsaP384 => &[SigningScheme::EcdsaP384Sha384, SigningScheme::EcdsaP384Sha256],
        KeyAlgorithm::Rsa => &[SigningScheme::RsaPkcs1Sha256],
        KeyAlgorithm::Ed25519 => &[SigningScheme::Ed25519],
        _ => &[],
    }
}

/// An Ed25519 key; none for a point of small order, for which anyone can sign.
fn ed25519(raw: &[u8]) -> Option<VerifyingKey> {
    let key = VerifyingKey::from_bytes(raw.try_into().ok()?).ok()?;
    (!key.is_weak()).then_some(key)
}

/// Ed25519ph (RFC 8032, section 5.1), without context: what cosign 3 signs with. Releases before 3 sign the message itself.
fn verifies_prehashed(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = Signature::from_slice(signature) else {
        return false;
    };
    let prehash = Sha512::new_with_prefix(message);
    key.verify_prehashed_strict(prehash, None, &signature).is_ok()
}

/// The contents of all blocks. Anything but blocks and blank lines is an error, so that a typing mistake in a marker
/// cannot hide a key.
fn blocks(text: &str) -> Result<Vec<Vec<u8>>, PublicKeyError> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    let mut last = 1;
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        last = line;
        match (&mut open, content.strip_prefix("-----BEGIN ")) {
            (None, Some(label)) => {
                check_label(label.strip_suffix("-----").ok_or(PublicKeyError::ParsePem { line })?)?;
                open = Some(String::new());
            }
            (None, None) if content.is_empty() => {}
            (Some(base64), None) if content == "-----END PUBLIC KEY-----" => {
                found.push(STANDARD.decode(base64).map_err(|_| PublicKeyError::ParsePem { line })?);
                open = None;
            }
            (Some(base64), None) if !content.starts_with('-') => base64.push_str(content),
            _ => return Err(PublicKeyError::ParsePem { line }),
        }
    }
    match open {
        None => Ok(found),
        Some(_) => Err(PublicKeyError::ParsePem { line: last }),
    }
}

fn check_label(label: &str) -> Result<(), PublicKeyError> {
    match label {
        "PUBLIC KEY" => Ok(()),
        "CERTIFICATE" => Err(PublicKeyError::Certificate),
        private if private.contains("PRIVATE KEY") => Err(PublicKeyError::PrivateKey),
        _ => Err(PublicKeyError::OtherBlock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trust::testing::{pem, signer};
    use proptest::prelude::*;
    use rstest::rstest;

    #[test]
    fn verifies_what_its_other_half_signed() {
        let pair = signer();
        let key = PublicKey::from_pem(&pem(&pair)).unwrap().remove(0);
        let signature = pair.sign(b"policy").unwrap();
        assert!(key.verifies(b"policy", signature.as_bytes()));
        assert!(!key.verifies(b"Policy", signature.as_bytes()));
        assert!(!key.verifies(b"policy", &[]));
        assert!(!key.verifies(b"", &[]));
    }

    #[test]
    fn reads_several_keys_and_knows_them_apart() {
        let text = format!("\r\n{}\r\n\n{}", pem(&signer()), pem(&signer()).replace('\n', "\r\n"));
        let keys = PublicKey::from_pem(&text).unwrap();
        assert_eq!(keys.len(), 2);
        assert_ne!(keys[0].fingerprint(), keys[1].fingerprint());
        assert!(!keys[0].is_same(&keys[1]));
        assert!(keys[0].is_same(&keys[0].clone()));
    }

    /// Made for this table with `openssl genpkey`; the private half was thrown away.
    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDxBp3KbdSyOpH7nO5MJJUnt3WGzb/K1LKXT4s4loxPfX4g/rl9L8FrHfywMgE5ckyE8pwySZCts0e1DkVBacjmIs07Ocv01csFRzan4uTCHGa7uCyBjinKXf3pjHmgBFAfJaneVe6x+q7fVOl9TuaoKhPSeuOiWaQkhRpFOWM9xwIDAQAB\n-----END PUBLIC KEY-----";

    #[rstest]
    #[case::empty("", PublicKeyError::Empty)]
    #[case::blank(" \n\n", PublicKeyError::Empty)]
    #[case::junk("c2VjcmV0", PublicKeyError::ParsePem { line: 1 })]
    #[case::cosign_private_key(
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAA==\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----",
        PublicKeyError::PrivateKey
    )]
    #[case::private_key(
        "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----",
        PublicKeyError::PrivateKey
    )]
    #[case::certificate(
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
        PublicKeyError::Certificate
    )]
    #[case::pkcs1(
        "-----BEGIN RSA PUBLIC KEY-----\nAA==\n-----END RSA PUBLIC KEY-----",
        PublicKeyError::OtherBlock
    )]
    #[case::pgp("-----BEGIN PGP PUBLIC KEY BLOCK-----\nAA==\n", PublicKeyError::OtherBlock)]
    #[case::no_end("-----BEGIN PUBLIC KEY-----\nAA==\n", PublicKeyError::ParsePem { line: 2 })]
    #[case::no_base64("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", PublicKeyError::ParsePem { line: 3 })]
    #[case::no_key("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----", PublicKeyError::Unsupported { position: 1 })]
    #[case::weak_rsa(RSA_1024, PublicKeyError::Unsupported { position: 1 })]
    fn refuses_what_is_no_public_key(#[case] text: &str, #[case] expected: PublicKeyError) {
        assert_eq!(PublicKey::from_pem(text).unwrap_err(), expected);
    }

    /// A point has a third form beside the whole and the compressed one, of the same length as the whole. Two texts of
    /// one key must not pass for two signers.
    #[test]
    fn refuses_the_hybrid_form_of_a_point() {
        let der = signer().public_key_der().unwrap();
        let point = der.as_bytes().len() - 65;
        let odd = der.as_bytes().last().unwrap() & 1;
        for tag in [6 + odd, 7 - odd] {
            let mut hybrid = der.as_bytes().to_vec();
            assert_eq!(std::mem::replace(&mut hybrid[point], tag), 4);
            assert_eq!(PublicKey::from_der(hybrid), None);
        }
    }

    #[test]
    fn refuses_too_much() {
        assert_eq!(
            PublicKey::from_pem(&"\n".repeat(MAX_PEM_BYTES + 1)),
            Err(PublicKeyError::LimitSize)
        );
        let key = pem(&signer());
        assert!(PublicKey::from_pem(&key.repeat(MAX_KEYS)).is_ok());
        assert_eq!(
            PublicKey::from_pem(&key.repeat(MAX_KEYS + 1)),
            Err(PublicKeyError::LimitKeys)
        );
        // One good key does not save a bad one.
        let mixed = format!("{key}-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n");
        assert_eq!(
            PublicKey::from_pem(&mixed),
            Err(PublicKeyError::Unsupported { position: 2 })
        );
    }

    proptest! {
        #[test]
        fn never_panics_on_any_text(text in "(-----BEGIN PUBLIC KEY-----\n)?[A-Za-z0-9+/=\n -]{0,200}(-----END PUBLIC KEY-----)?") {
            let _ = PublicKey::from_pem(&text);
        }

        #[test]
        fn never_panics_on_any_key_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(bytes));
            let _ = PublicKey::from_pem(&text);
        }
    }
}
