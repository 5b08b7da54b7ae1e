//! The two readers below the archive: one hashes what goes into the decompressor, one counts what comes out.

use std::io::{self, Read};

use super::Limits;
use super::error::{self, BundleError};
use crate::domain::cancellation::CancellationToken;
use crate::domain::digest::{Digest, Hasher};

/// Expanded bytes that are free of the ratio.
const RATIO_FROM: u64 = 1 << 20;

/// Reads the stored bytes, hashes all of them, and never more than there should be. Stops when it is cancelled.
pub(super) struct HashingReader<'a> {
    reader: Box<dyn Read + Send>,
    token: &'a CancellationToken,
    hasher: Hasher,
    declared: u64,
    read: u64,
    failed: Option<BundleError>,
}

impl<'a> HashingReader<'a> {
    pub(super) fn new(reader: Box<dyn Read + Send>, declared: u64, token: &'a CancellationToken) -> Self {
        Self {
            reader,
            token,
            hasher: Hasher::default(),
            declared,
            read: 0,
            failed: None,
        }
    }

    /// Reads what was left unread, and says whether all of it was the bytes of `digest`.
    pub(super) fn finish(mut self, digest: &Digest) -> Result<(), BundleError> {
        let drained = io::copy(&mut self, &mut io::sink());
        if let Some(error) = self.failed {
            return Err(error);
        }
        drained.map_err(BundleError::from_stream)?;
        error::check(self.hasher.finish(), self.read, digest, self.declared)
    }

    fn fail(&mut self, error: BundleError) -> io::Error {
        self.failed = Some(error.clone());
        io::Error::other(error)
    }
}

impl Read for HashingReader<'_> {
    /// Fills the whole of `buffer` unless the end comes first.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.token.is_cancelled() {
            return Err(self.fail(BundleError::Cancelled));
        }
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            // One byte more than there should be is enough to know that there are too many.
            let left = usize::try_from(self.declared.saturating_add(1).saturating_sub(self.read)).unwrap_or(usize::MAX);
            let length = rest.len().min(left);
            match self.reader.read(rest.get_mut(..length).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => {
                    let count = count.min(length);
                    self.hasher.update(rest.get(..count).unwrap_or_default());
                    self.read += count as u64;
                    filled += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fail(BundleError::read(&error))),
            }
        }
        Ok(filled)
    }
}

/// Counts what comes out of the decompressor, and stops it if that is too much.
///
/// It stands between decompressor and archive, not behind the archive: there a header may claim any size and make its
/// reader buffer it.
pub(super) struct Expanded<R> {
    reader: R,
    read: u64,
    compressed: u64,
    limits: Limits,
}

impl<R: Read> Expanded<R> {
    pub(super) fn new(reader: R, compressed: u64, limits: &Limits) -> Self {
        Self {
            reader,
            read: 0,
            compressed,
            limits: *limits,
        }
    }

    pub(super) fn into_inner(self) -> R {
        self.reader
    }
}

impl<R: Read> Read for Expanded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read += count as u64;
        let Limits {
            expanded_bytes, ratio, ..
        } = self.limits;
        if self.read > expanded_bytes {
            let error = BundleError::limit("bytes after decompression", expanded_bytes);
            return Err(io::Error::other(error));
        }
        if self.read > RATIO_FROM && self.read > self.compressed.saturating_mul(ratio) {
            let error = BundleError::limit("expanded bytes per compressed byte", ratio);
            return Err(io::Error::other(error));
        }
        Ok(count)
    }
}
