//! Walks through the archive of a bundle.

use std::io::{BufRead as _, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::error::BundleError;
use super::header::{self, Attributes, BLOCK, Header, Kind};
use super::manifest::MANIFEST;
use super::paths::{self, Paths};
use super::stream::{Expanded, HashingReader};
use super::{BundleFacts, Limits};
use crate::domain::digest::Digest;
use crate::domain::text::excerpt;

/// Largest extended header that is read, in bytes.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;
/// How much is read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// Set-user-ID and set-group-ID.
const SET_ID_BITS: u64 = 0o6000;

/// What an archive turned out to hold.
pub(super) struct Listing {
    pub(super) paths: Paths,
    manifest: Option<Vec<u8>>,
}

impl Listing {
    /// Checks the paths and the manifest against each other, and keeps what is reported. The paths go: ten thousand of
    /// them would be a hundred times as large as all the rest.
    pub(super) fn into_facts(self, digest: Digest, size: u64) -> Result<BundleFacts, BundleError> {
        let files = self.paths.into_files()?;
        let manifest = super::manifest::read(self.manifest.as_deref(), &files)?;
        Ok(BundleFacts {
            digest,
            size,
            revision: manifest.revision,
            roots: manifest.roots,
            rego_version: manifest.rego_version,
            files: files.len(),
        })
    }
}

/// Reads a gzipped archive to its end.
pub(super) fn read(source: &mut HashingReader<'_>, compressed: u64, limits: &Limits) -> Result<Listing, BundleError> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    sniff(source.fill_buf().map_err(BundleError::from_stream)?)?;
    let expanded = Expanded::new(GzDecoder::new(source), compressed, limits);
    let mut walker = Walker::new(BufReader::with_capacity(BUFFER_BYTES, expanded), limits);
    walker.walk()?;
    // A second gzip member is read by Go and not by everyone; bytes that are no gzip, by nobody.
    let mut source = walker.reader.into_inner().into_inner().into_inner();
    match source.fill_buf().map_err(BundleError::from_stream)? {
        [] => Ok(walker.listing),
        _ => Err(BundleError::TrailingBytes("the bundle's gzip")),
    }
}

/// The media type is only a claim; the first bytes say what it is.
fn sniff(start: &[u8]) -> Result<(), BundleError> {
    let found = match start {
        [0x1f, 0x8b, 8, ..] => return Ok(()),
        [] => "empty",
        [b'P', b'K', 3 | 5, ..] => "a zip archive",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "compressed with zstd",
        [b'B', b'Z', b'h', ..] => "compressed with bzip2",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "compressed with xz",
        [b'{', ..] => "JSON",
        _ if start.get(257..262) == Some(b"ustar") => "a tar archive without compression",
        _ => "of an unknown format",
    };
    Err(BundleError::NotGzip { found })
}

struct Walker<R> {
    reader: R,
    limits: Limits,
    /// Headers read so far.
    entries: u64,
    listing: Listing,
}

impl<R: Read> Walker<R> {
    fn new(reader: R, limits: &Limits) -> Self {
        let listing = Listing {
            paths: Paths::default(),
            manifest: None,
        };
        Self {
            reader,
            limits: *limits,
            entries: 0,
            listing,
        }
    }

    fn walk(&mut self) -> Result<(), BundleError> {
        // What extended headers say of the entry that follows them.
        let mut pending: Option<Attributes> = None;
        while let Some(header) = self.header()? {
            if let Kind::File | Kind::Directory | Kind::Other(_) = header.kind {
                self.entry(&header, &pending.take().unwrap_or_default())?;
                continue;
            }
            if pending.is_some() {
                return Err(self.malformed("has two extended headers"));
            }
            let bytes = self.content(header.size, "bytes of an extended header", MAX_EXTENSION_BYTES)?;
            let read = match header.kind {
                Kind::LongName => header::long_name(&bytes),
                kind => header::attributes(&bytes, kind == Kind::GlobalAttributes),
            };
            let attributes = read.map_err(|cause| self.malformed(cause))?;
            pending = (header.kind != Kind::GlobalAttributes).then_some(attributes);
        }
        if pending.is_some() {
            return Err(self.malformed("describes an entry that does not follow"));
        }
        self.end()
    }

    fn entry(&mut self, header: &Header, attributes: &Attributes) -> Result<(), BundleError> {
        if attributes.size.is_some_and(|size| size != header.size) {
            return Err(self.malformed("has two sizes"));
        }
        let name = attributes.path.as_deref().unwrap_or(&header.name);
        if let Kind::Other(kind) = header.kind {
            let path = excerpt(&String::from_utf8_lossy(name));
            return Err(BundleError::EntryKind { path, kind });
        }
        let directory = header.kind == Kind::Directory;
        let path = paths::normalise(name, directory, &self.limits)?;
        if directory {
            if header.size != 0 {
                return Err(self.malformed("is a directory with content"));
            }
            self.listing.paths.add_directory(&path);
            return Ok(());
        }
        if header.mode & SET_ID_BITS != 0 {
            let kind = "a setuid or setgid file";
            return Err(BundleError::EntryKind { path, kind });
        }
        self.listing.paths.add_file(&path)?;
        if path != MANIFEST {
            return self.skip(header.size);
        }
        let limit = self.limits.manifest_bytes;
        self.listing.manifest = Some(self.content(header.size, "bytes of '.manifest'", limit)?);
        Ok(())
    }

    /// The next header; none at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, BundleError> {
        let mut block = [0; BLOCK];
        if !self.fill(&mut block)? {
            return Ok(None);
        }
        self.entries += 1;
        let header = Header::read(&block).map_err(|cause| self.malformed(cause))?;
        if header.is_some() && self.entries > self.limits.entries {
            return Err(BundleError::limit("entries", self.limits.entries));
        }
        Ok(header)
    }

    fn content(&mut self, size: u64, what: &'static str, limit: u64) -> Result<Vec<u8>, BundleError> {
        let length = usize::try_from(size).ok().filter(|_| size <= limit);
        let mut content = vec![0; length.ok_or_else(|| BundleError::limit(what, limit))?];
        if !content.is_empty() && !self.fill(&mut content)? {
            return Err(self.malformed("is cut off"));
        }
        self.skip_padding(size)?;
        Ok(content)
    }

    fn skip(&mut self, size: u64) -> Result<(), BundleError> {
        let skipped = std::io::copy(&mut (&mut self.reader).take(size), &mut std::io::sink());
        if skipped.map_err(BundleError::from_stream)? != size {
            return Err(self.malformed("is cut off"));
        }
        self.skip_padding(size)
    }

    fn skip_padding(&mut self, size: u64) -> Result<(), BundleError> {
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let mut block = [0; BLOCK];
        let padding = block
            .get_mut(..usize::try_from(padding).unwrap_or_default())
            .unwrap_or_default();
        if !padding.is_empty() && !self.fill(padding)? {
            return Err(self.malformed("is cut off"));
        }
        Ok(())
    }

    /// Reads on to the end of the decompressed bytes, which are zeros: programs pad archives to whole records.
    fn end(&mut self) -> Result<(), BundleError> {
        let mut block = [0; BLOCK];
        while self.fill(&mut block)? {
            if block.iter().any(|byte| *byte != 0) {
                return Err(BundleError::TrailingBytes("the bundle's archive"));
            }
        }
        Ok(())
    }

    /// Fills `buffer`, or returns false at the end. An end in its midst is an error.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, BundleError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest).map_err(BundleError::from_stream)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(self.malformed("is cut off")),
                count => filled += count,
            }
        }
        Ok(true)
    }

    fn malformed(&self, cause: &'static str) -> BundleError {
        BundleError::Header {
            entry: self.entries,
            cause,
        }
    }
}
