//! Whose signatures allow a policy to run, and verified values.

mod error;
mod evidence;
mod key;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::fingerprint;
use super::cancellation::CancellationToken;
use super::digest::Digest;
use super::revision::{ImageRevision, Revision};
pub use error::{TrustError, TrustPolicyError};
pub use evidence::{Evidence, Fault, MAX_BUNDLE_BYTES, MAX_PAYLOAD_BYTES, MAX_SIGNATURE_CHARS, SIGN_PREDICATE};
pub use key::{MAX_KEYS, MAX_PEM_BYTES, PublicKey, PublicKeyError};

/// Most authorities of one policy.
pub const MAX_AUTHORITIES: usize = 16;
/// Longest name of an authority, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Most checks of one signature by one key in one decision: fifty signatures with forty keys, or eight with all 256.
/// They take up to two seconds, if all keys are of the slowest kind.
pub const MAX_SIGNATURE_CHECKS: usize = 2000;

/// A value that may be delivered, and the verification that says why.
///
/// **Security invariant:** only [`TrustPolicy::decide`] creates one, and only a function of [`crate::domain`] that
/// checks the digest which binds the two turns one into another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    verification: Arc<Verification>,
}

/// Why a [`Verified`] value may be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// The object requires no verification, and its status says so.
    NotConfigured,
    /// Enough authorities signed the digest.
    Signed {
        /// The names of the authorities that did, in the order of the policy.
        authorities: Vec<String>,
        /// [`TrustPolicy::digest`] of the policy that was satisfied.
        trust_digest: Digest,
    },
}

impl Verification {
    /// The fingerprint of the policy that was satisfied; `None` if nothing was required.
    #[must_use]
    pub fn trust_digest(&self) -> Option<&Digest> {
        match self {
            Self::NotConfigured => None,
            Self::Signed { trust_digest, .. } => Some(trust_digest),
        }
    }
}

impl<T> Verified<T> {
    /// The value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The verification.
    pub fn verification(&self) -> &Verification {
        &self.verification
    }

    /// Carries the verification over to a value that the caller has bound to this one by digest.
    pub(in crate::domain) fn carry_over<U>(&self, value: U) -> Verified<U> {
        Verified {
            value,
            verification: Arc::clone(&self.verification),
        }
    }
}

impl From<Verified<ImageRevision>> for Verified<Revision> {
    fn from(verified: Verified<ImageRevision>) -> Self {
        verified.carry_over(Revision::Image(verified.value().clone()))
    }
}

impl Verified<Revision> {
    /// The image that was verified.
    #[must_use]
    pub fn image(&self) -> Verified<ImageRevision> {
        match self.value() {
            Revision::Image(image) => self.carry_over(image.clone()),
        }
    }
}

/// One signer, known by one or more keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The name in the spec and in status.
    pub name: String,
    /// Any one of these keys may sign for the authority.
    pub keys: Vec<PublicKey>,
}

/// What an object requires before its policy may be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustPolicy {
    /// Nothing.
    NotConfigured,
    /// Signatures. Made by [`TrustPolicy::signed_by`].
    Signed(SignaturePolicy),
}

/// m of n authorities.
///
/// No key belongs to two authorities, so that m matches are always m different keys: one leaked key never counts twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignaturePolicy {
    authorities: Vec<Authority>,
    minimum_matches: usize,
    digest: Digest,
}

impl TrustPolicy {
    /// Requires that at least `minimum_matches` of the authorities signed.
    ///
    /// # Errors
    /// [`TrustPolicyError`]: no authority or too many, a name that is empty, too long or used twice, an authority
    /// without keys or with too many, a key of two authorities, no match required, or more than there are authorities.
    pub fn signed_by(authorities: Vec<Authority>, minimum_matches: usize) -> Result<Self, TrustPolicyError> {
        if authorities.is_empty() || authorities.len() > MAX_AUTHORITIES {
            return Err(TrustPolicyError::CountAuthorities {
                found: authorities.len(),
            });
        }
        if minimum_matches == 0 || minimum_matches > authorities.len() {
            return Err(TrustPolicyError::MinimumMatches {
                required: minimum_matches,
                authorities: authorities.len(),
            });
        }
        for (position, authority) in authorities.iter().enumerate() {
            authority.check(authorities.get(..position).unwrap_or_default())?;
        }
        let digest = policy_digest(&authorities, minimum_matches);
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

    /// Decides whether `evidence` verifies `revision`. Takes up to a few hundred microseconds per signature and key, of
    /// which it tries [`MAX_SIGNATURE_CHECKS`] pairs.
    ///
    /// # Errors
    /// [`TrustError`] if it does not.
    pub fn decide(
        &self,
        revision: &ImageRevision,
        evidence: &[Evidence],
    ) -> Result<Verified<ImageRevision>, TrustError> {
        self.decide_unless_cancelled(revision, evidence, &CancellationToken::default())
    }

    /// The same, and stops between two signatures when it is cancelled.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn decide_unless_cancelled(
        &self,
        revision: &ImageRevision,
        evidence: &[Evidence],
        token: &CancellationToken,
    ) -> Result<Verified<ImageRevision>, TrustError> {
        let verification = match self {
            Self::NotConfigured => Verification::NotConfigured,
            Self::Signed(policy) => policy.verify(revision, evidence, token)?,
        };
        Ok(Verified {
            value: revision.clone(),
            verification: Arc::new(verification),
        })
    }
}

impl SignaturePolicy {
    fn verify(
        &self,
        revision: &ImageRevision,
        evidence: &[Evidence],
        token: &CancellationToken,
    ) -> Result<Verification, TrustError> {
        let mut checks_left = MAX_SIGNATURE_CHECKS;
        let mut matched = BTreeSet::new();
        let mut faults = BTreeSet::new();
        for piece in evidence {
            if token.is_cancelled() {
                return Err(TrustError::Cancelled);
            }
            let claim = piece.claim(&revision.digest);
            match claim.and_then(|claim| self.signer(&claim, &mut checks_left)) {
                Ok(position) => drop(matched.insert(position)),
                Err(fault) => drop(faults.insert(fault)),
            }
        }
        if matched.len() >= self.minimum_matches {
            return Ok(Verification::Signed {
                authorities: self.names(|position| matched.contains(&position)),
                trust_digest: self.digest,
            });
        }
        let subject = Box::new(revision.clone());
        if evidence.is_empty() {
            return Err(TrustError::Unsigned {
                subject,
                authorities: self.names(|_| true),
            });
        }
        Err(TrustError::Mismatch {
            subject,
            found: evidence.len(),
            needed: self.minimum_matches,
            matched: self.names(|position| matched.contains(&position)),
            missing: self.names(|position| !matched.contains(&position)),
            faults: faults.into_iter().collect(),
        })
    }

    /// The position of the authority whose key made the claim; at most one, for no two share a key.
    fn signer(&self, claim: &evidence::Claim, checks_left: &mut usize) -> Result<usize, Fault> {
        for (position, authority) in self.authorities.iter().enumerate() {
            for key in &authority.keys {
                *checks_left = checks_left.checked_sub(1).ok_or(Fault::Unchecked)?;
                if key.verifies(&claim.message, &claim.signature) {
                    return Ok(position);
                }
            }
        }
        Err(Fault::OtherKey)
    }

    fn names(&self, take: impl Fn(usize) -> bool) -> Vec<String> {
        let taken = self
            .authorities
            .iter()
            .enumerate()
            .filter(|(position, _)| take(*position));
        taken.map(|(_, authority)| authority.name.clone()).collect()
    }
}

impl Authority {
    /// Checks this authority by itself and against those before it.
    fn check(&self, before: &[Self]) -> Result<(), TrustPolicyError> {
        let name = || self.name.chars().take(MAX_NAME_BYTES).collect::<String>();
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return Err(TrustPolicyError::Name { name: name() });
        }
        if self.keys.is_empty() || self.keys.len() > MAX_KEYS {
            return Err(TrustPolicyError::CountKeys {
                name: name(),
                found: self.keys.len(),
            });
        }
        for other in before {
            if other.name == self.name {
                return Err(TrustPolicyError::DuplicateName { name: name() });
            }
            if let Some(key) = self
                .keys
                .iter()
                .find(|key| other.keys.iter().any(|theirs| theirs.is_same(key)))
            {
                return Err(TrustPolicyError::SharedKey {
                    one: other.name.clone(),
                    other: name(),
                    fingerprint: key.fingerprint(),
                });
            }
        }
        Ok(())
    }
}

/// The same for every order of authorities and keys, which changes nothing of what is required.
fn policy_digest(authorities: &[Authority], minimum_matches: usize) -> Digest {
    let mut members: Vec<Vec<String>> = authorities
        .iter()
        .map(|authority| {
            let keys: BTreeSet<String> = authority.keys.iter().map(|key| key.fingerprint().hex()).collect();
            let mut parts = vec![authority.name.clone(), keys.len().to_string()];
            parts.extend(keys);
            parts
        })
        .collect();
    members.sort();
    let minimum = minimum_matches.to_string();
    fingerprint(
        ["keyed", minimum.as_str()]
            .into_iter()
            .chain(members.iter().flatten().map(String::as_str)),
    )
}

#[cfg(test)]
mod tests;
