//! Builds archives byte by byte, so that tests can make those that no library writes.

use std::io::{self, Read, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Content;

#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Content for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A header as Go's library writes it.
pub(crate) fn header(name: &[u8], flag: u8, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000600\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(header)
}

/// Puts the right checksum into a header.
pub(crate) fn seal(mut header: [u8; 512]) -> [u8; 512] {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[derive(Default, Clone)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// A small policy, to which a test adds what it is about.
    pub(crate) fn policy() -> Self {
        Self::default()
            .file("/data.json", b"{}")
            .file("/app/policy.rego", b"package app\n")
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name.as_bytes(), b'0', content)
    }

    pub(crate) fn entry(self, name: &[u8], flag: u8, content: &[u8]) -> Self {
        self.raw(&header(name, flag, content.len() as u64)).raw(content).pad()
    }

    /// A file behind a PAX header with these records.
    pub(crate) fn with_attributes(self, records: &[(&str, &str)], name: &str, content: &[u8]) -> Self {
        let mut attributes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..rest + 20)
                .find(|length| rest + length.to_string().len() == *length)
                .unwrap();
            attributes.extend(format!("{length} {key}={value}\n").bytes());
        }
        self.entry(b"PaxHeaders/x", b'x', &attributes).file(name, content)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The archive, ended and compressed.
    pub(crate) fn gzip(self) -> Vec<u8> {
        gzip(&self.raw(&[0; 1024]).0)
    }
}
