//! The reasons of the domain's errors, and what happens next.

use super::reason::{Classify, Disposition, Reason};
use crate::domain::artifact::ManifestError;
use crate::domain::bundle::BundleError;

impl Classify for ManifestError {
    fn reason(&self) -> Reason {
        match self {
            Self::TooLarge | Self::LimitEntries { .. } => Reason::TooLarge,
            Self::DigestMismatch { .. } => Reason::DigestMismatch,
            Self::MediaTypeMismatch { .. } | Self::SizeMismatch { .. } => Reason::RegistryProtocolError,
            Self::ParseJson { .. }
            | Self::SchemaVersion(_)
            | Self::NegativeSize(_)
            | Self::MediaType(_)
            | Self::Ambiguous
            | Self::NestedIndex
            | Self::EmptyIndex
            | Self::AmbiguousIndex { .. }
            | Self::NotAPolicyImage { .. } => Reason::NotAPolicyImage,
        }
    }

    fn disposition(&self) -> Disposition {
        match self.reason() {
            Reason::DigestMismatch => Disposition::Retry,
            _ => Disposition::Stalled,
        }
    }
}

impl Classify for BundleError {
    fn reason(&self) -> Reason {
        match self {
            Self::Read { .. } | Self::Cancelled => Reason::Internal,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => Reason::DigestMismatch,
            Self::Limit { .. } => Reason::TooLarge,
            Self::NotGzip { .. }
            | Self::Gzip { .. }
            | Self::TrailingBytes(_)
            | Self::Header { .. }
            | Self::EntryKind { .. }
            | Self::Path { .. }
            | Self::Duplicate { .. }
            | Self::FileAndDirectory { .. }
            | Self::SecondManifest { .. }
            | Self::Manifest { .. }
            | Self::OverlappingRoots { .. }
            | Self::OutsideRoots { .. }
            | Self::Delta
            | Self::Empty { .. } => Reason::InvalidBundle,
        }
    }

    fn disposition(&self) -> Disposition {
        match self.reason() {
            Reason::Internal | Reason::DigestMismatch => Disposition::Retry,
            _ => Disposition::Stalled,
        }
    }
}
