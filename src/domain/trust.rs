//! Who is trusted to say that a policy may run, and the proof that they said so.

use std::sync::Arc;

use super::digest::Digest;
use super::revision::Revision;

/// A value, and the proof of why it may be delivered.
///
/// **Security invariant:** there is no way to make one but [`TrustPolicy::decide`], and no way to turn one into another
/// but by a function of [`crate::domain`] that checks the digest which binds the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    proof: Arc<Proof>,
}

/// Why a [`Verified`] value may be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The object asks for no verification, and its status says so.
    NotConfigured,
    /// Enough authorities signed the digest.
    Signed {
        /// The names of the authorities that did, in the order of the policy.
        authorities: Vec<String>,
        /// [`TrustPolicy::digest`] of the policy that was satisfied.
        trust_digest: Digest,
    },
}

impl<T> Verified<T> {
    /// The value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The proof.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Carries the proof over to a value that the caller has bound to this one by digest.
    pub(in crate::domain) fn bind<U>(&self, value: U) -> Verified<U> {
        Verified {
            value,
            proof: Arc::clone(&self.proof),
        }
    }
}

/// A public key. Placeholder, to be completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey;

/// One signer, known by one or more keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The name in the spec and in status.
    pub name: String,
    /// Any one of these keys speaks for the authority.
    pub keys: Vec<PublicKey>,
}

/// What an object demands before its policy may be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustPolicy {
    /// Nothing.
    NotConfigured,
    /// Signatures. Made by [`TrustPolicy::signed_by`].
    Signed(SignaturePolicy),
}

/// m of n authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignaturePolicy {
    authorities: Vec<Authority>,
    minimum_matches: usize,
    digest: Digest,
}

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
}

/// Why a trust policy cannot be. Placeholder, to be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustPolicyError {
    /// Broken.
    #[error("{0}")]
    Invalid(String),
}

/// Why the policy is not satisfied. Placeholder, to be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no evidence at all.
    #[error("'{subject}' carries no signature")]
    Unsigned {
        /// The image and its digest.
        subject: String,
    },
    /// Broken.
    #[error("{0}")]
    Mismatch(String),
}

impl TrustPolicy {
    /// Demands that at least `minimum_matches` of the authorities signed.
    ///
    /// # Errors
    /// [`TrustPolicyError`]: no authority, a name or a key twice, more matches asked for than authorities.
    pub fn signed_by(authorities: Vec<Authority>, minimum_matches: usize) -> Result<Self, TrustPolicyError> {
        let digest = Digest::of(b"");
        Ok(Self::Signed(SignaturePolicy {
            authorities,
            minimum_matches,
            digest,
        }))
    }

    /// A fingerprint of the effective policy: changes when a key is added, removed or rotated. None for
    /// [`TrustPolicy::NotConfigured`].
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::NotConfigured => None,
            Self::Signed(policy) => Some(&policy.digest),
        }
    }

    /// Decides whether `evidence` proves `revision`.
    ///
    /// # Errors
    /// [`TrustError`] where it does not.
    pub fn decide(&self, revision: &Revision, evidence: &[Evidence]) -> Result<Verified<Revision>, TrustError> {
        match self {
            Self::NotConfigured => Ok(Verified {
                value: revision.clone(),
                proof: Arc::new(Proof::NotConfigured),
            }),
            Self::Signed(policy) => {
                let _ = (evidence, &policy.authorities, policy.minimum_matches);
                Err(TrustError::Unsigned {
                    subject: format!("{}@{}", revision.repository, revision.digest),
                })
            }
        }
    }
}
impl Proof {
    /// The fingerprint of the policy that was satisfied; none where nothing was asked for.
    #[must_use]
    pub fn trust_digest(&self) -> Option<&Digest> {
        match self {
            Self::NotConfigured => None,
            Self::Signed { trust_digest, .. } => Some(trust_digest),
        }
    }
}
/// t
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("t")]
pub struct PublicKeyError;
impl PublicKey {
/// t
/// # Errors
/// t
pub fn from_pem(_t: &str) -> Result<Vec<Self>, PublicKeyError> { Ok(vec![]) }
}
