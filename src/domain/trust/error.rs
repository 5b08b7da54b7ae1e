//! What can be wrong with a trust policy, and with the signatures it requires.

use super::evidence::Fault;
use super::{MAX_AUTHORITIES, MAX_KEYS, MAX_NAME_BYTES};
use crate::domain::digest::Digest;
use crate::domain::revision::ImageRevision;
use crate::domain::text::quoted_list;

/// Why a trust policy is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustPolicyError {
    /// No authority, which would require nothing, or over [`MAX_AUTHORITIES`].
    #[error("{found} authorities, not 1 to {MAX_AUTHORITIES}")]
    CountAuthorities {
        /// How many were given.
        found: usize,
    },
    /// No match required, which would require nothing, or more than there are authorities.
    #[error("{required} matches required of {authorities} authorities, not 1 to {authorities}")]
    MinimumMatches {
        /// How many are required.
        required: usize,
        /// How many authorities there are.
        authorities: usize,
    },
    /// The name is empty or over [`MAX_NAME_BYTES`].
    #[error("the authority name '{name}' does not have 1 to {MAX_NAME_BYTES} bytes")]
    Name {
        /// The name, cut.
        name: String,
    },
    /// Two authorities have this name.
    #[error("the authority name '{name}' is used twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The authority has no key, or over [`MAX_KEYS`].
    #[error("authority '{name}' has {found} keys, not 1 to {MAX_KEYS}")]
    CountKeys {
        /// The authority.
        name: String,
        /// How many keys it has.
        found: usize,
    },
    /// Two authorities have this key, so one signature would count twice.
    #[error("authorities '{one}' and '{other}' share the key {fingerprint}; a key may belong to one authority only")]
    SharedKey {
        /// The first authority.
        one: String,
        /// The second authority.
        other: String,
        /// The key's fingerprint.
        fingerprint: Digest,
    },
}

/// Why the policy is not satisfied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no evidence at all.
    #[error(
        "image {} of '{}' carries no signature",
        subject.digest.short(), subject.repository
    )]
    Unsigned {
        /// The image.
        subject: Box<ImageRevision>,
        /// The authorities that could sign.
        authorities: Vec<String>,
    },
    /// There are signatures, and too few authorities made them.
    #[error(
        "image {} of '{}' carries {found} signature{}, by {} of the {needed} authorities needed ({}); missing: {}{}",
        subject.digest.short(), subject.repository, if *found == 1 { "" } else { "s" }, matched.len(), quoted_list(matched), quoted_list(missing), reasons(faults)
    )]
    Mismatch {
        /// The image.
        subject: Box<ImageRevision>,
        /// How many pieces of evidence there are.
        found: usize,
        /// How many authorities have to match.
        needed: usize,
        /// The authorities that signed.
        matched: Vec<String>,
        /// The authorities that did not.
        missing: Vec<String>,
        /// Why other pieces of evidence do not count, each reason once.
        faults: Vec<Fault>,
    },
    /// The caller does not wait for the decision any more, so it was not made.
    #[error("checking the signatures was cancelled")]
    Cancelled,
}

/// `; not counted: unreadable, for another digest`.
fn reasons(faults: &[Fault]) -> String {
    if faults.is_empty() {
        return String::new();
    }
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    format!("; not counted: {}", faults.join(", "))
}
