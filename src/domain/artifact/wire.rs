//! Manifests and indexes as they are on the wire.
//!
//! Source: OCI image specification, "Image Manifest", "Image Index" and "Descriptor"; Docker's image manifest version 2,
//! schema 2, has the same fields.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, MAX_ENTRIES, MAX_MANIFEST_BYTES, ManifestError, OCI_INDEX, OCI_MANIFEST,
};
use crate::domain::bounded::BoundedList;
use crate::domain::digest::Digest;
use crate::domain::strict_json;
use crate::domain::text::excerpt;

/// A manifest or an index, never both.
pub(super) enum Document {
    Image(Box<Image>),
    Index(Vec<Entry>),
}

/// The parts of an image manifest that matter here.
pub(super) struct Image {
    pub(super) config: Option<Descriptor>,
    pub(super) artifact_type: Option<String>,
    pub(super) layers: Vec<Descriptor>,
    pub(super) subject: Option<Descriptor>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// One manifest of an index.
pub(super) struct Entry {
    pub(super) descriptor: Descriptor,
    pub(super) platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDocument {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<WireDescriptor>,
    layers: Option<BoundedList<WireDescriptor, MAX_ENTRIES>>,
    manifests: Option<BoundedList<WireDescriptor, MAX_ENTRIES>>,
    subject: Option<WireDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    media_type: String,
    digest: Digest,
    size: i64,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
pub(super) struct Platform {
    pub(super) architecture: Option<String>,
    pub(super) os: Option<String>,
}

/// Reads `bytes`, which have to hash to `digest`, as what `header` and they themselves say they are.
///
/// **Security invariant:** bytes that one reader takes for a manifest and another for an index are refused
/// (OCI advisory GHSA-77vh-xpmg-72qh): else one thing could be verified and another delivered.
pub(super) fn read(digest: &Digest, header: &str, bytes: &[u8]) -> Result<Document, ManifestError> {
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let actual = Digest::of(bytes);
    if actual != *digest {
        return Err(ManifestError::DigestMismatch {
            expected: *digest,
            actual,
        });
    }
    let document: WireDocument = strict_json::parse(bytes).map_err(|error| ManifestError::ParseJson {
        cause: error.to_string().chars().take(200).collect(),
    })?;
    if document.schema_version != 2 {
        return Err(ManifestError::SchemaVersion(document.schema_version));
    }
    let is_index = kind(header, &document)?;
    document.into_kind(is_index)
}

/// Whether it is an index, by the header, the body's own media type and the body's fields, which all have to agree.
fn kind(header: &str, document: &WireDocument) -> Result<bool, ManifestError> {
    let body = document.media_type.as_deref().unwrap_or_default();
    // Some registries serve everything as JSON or as bytes; such a header says nothing.
    let header = match header {
        "application/json" | "application/octet-stream" | "text/plain" => "",
        header => header,
    };
    if !header.is_empty() && !body.is_empty() && header != body {
        return Err(ManifestError::MediaTypeMismatch {
            header: excerpt(header),
            body: excerpt(body),
        });
    }
    let is_index = match if body.is_empty() { header } else { body } {
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        OCI_INDEX | DOCKER_INDEX => true,
        "" => document.manifests.is_some(),
        other => return Err(ManifestError::MediaType(excerpt(other))),
    };
    if document.layers.is_some() && document.manifests.is_some() || is_index == document.layers.is_some() {
        return Err(ManifestError::Ambiguous);
    }
    Ok(is_index)
}

impl WireDocument {
    fn into_kind(self, is_index: bool) -> Result<Document, ManifestError> {
        let entries = if is_index { self.manifests } else { self.layers }.unwrap_or_default();
        let entries = entries
            .complete()
            .map_err(|found| ManifestError::LimitEntries { found })?;
        if is_index {
            let entries = entries
                .into_iter()
                .map(WireDescriptor::entry)
                .collect::<Result<_, _>>()?;
            return Ok(Document::Index(entries));
        }
        Ok(Document::Image(Box::new(Image {
            config: self.config.map(WireDescriptor::descriptor).transpose()?,
            artifact_type: self.artifact_type,
            layers: entries
                .into_iter()
                .map(WireDescriptor::descriptor)
                .collect::<Result<_, _>>()?,
            subject: self.subject.map(WireDescriptor::descriptor).transpose()?,
            annotations: self.annotations.unwrap_or_default(),
        })))
    }
}

impl WireDescriptor {
    fn entry(mut self) -> Result<Entry, ManifestError> {
        let platform = self.platform.take();
        let descriptor = self.descriptor()?;
        Ok(Entry { descriptor, platform })
    }

    fn descriptor(self) -> Result<Descriptor, ManifestError> {
        Ok(Descriptor {
            size: self
                .size
                .try_into()
                .map_err(|_| ManifestError::NegativeSize(self.size))?,
            media_type: self.media_type,
            digest: self.digest,
            artifact_type: self.artifact_type,
            annotations: self.annotations.unwrap_or_default(),
        })
    }
}
