//! Manifests and indexes, and the digest a tag points at.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};

use super::observer::RequestKind;
use super::sender::RegistryRequest;
use super::session::Session;
use crate::domain::artifact::{DOCKER_INDEX, DOCKER_MANIFEST, MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST};
use crate::domain::digest::Digest;
use crate::domain::reference::Tag;
use crate::pipeline::ports::{ManifestName, RawManifest, RegistryError};

/// Everything a tag can lead to. A registry that finds no type of its own among these may convert the manifest, which
/// changes its digest, or claim that there is none.
const ACCEPT: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// What a tag points at now. The registry claims the digest; the manifest is then fetched by it, and hashed.
pub(super) async fn resolve(session: &Session<'_>, tag: &Tag) -> Result<Digest, RegistryError> {
    let name = ManifestName::Tag(tag.clone());
    let mut request = manifest_request(session, &name);
    request.method = Method::HEAD;
    let response = session.send(&request).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(request.unexpected(StatusCode::NOT_FOUND));
    }
    let named = response
        .headers()
        .get("docker-content-digest")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    match named {
        Some(digest) if response.status() == StatusCode::OK => Ok(digest),
        // No HEAD, or no digest in it: hash the bytes themselves.
        _ => Ok(get(session, &name).await?.digest),
    }
}

/// A manifest, hashed here.
pub(super) async fn get(session: &Session<'_>, name: &ManifestName) -> Result<RawManifest, RegistryError> {
    let request = manifest_request(session, name);
    let response = session.fetch(&request, MAX_MANIFEST_BYTES).await?;
    if response.status != StatusCode::OK {
        return Err(request.unexpected(response.status));
    }
    let digest = Digest::of(&response.body);
    match name {
        ManifestName::Digest(expected) if *expected != digest => Err(RegistryError::DigestMismatch {
            host: request.host,
            resource: request.resource,
            expected: *expected,
            actual: digest,
        }),
        _ => Ok(RawManifest {
            digest,
            media_type: media_type(&response.headers),
            bytes: response.body,
        }),
    }
}

fn manifest_request(session: &Session<'_>, name: &ManifestName) -> RegistryRequest {
    let resource = match name {
        ManifestName::Tag(tag) => format!(":{tag}"),
        ManifestName::Digest(digest) => format!("@{digest}"),
    };
    RegistryRequest {
        accept: &ACCEPT,
        ..session.request(RequestKind::Manifest, session.endpoint.manifest(name), &resource)
    }
}

/// The `Content-Type` without parameters, or empty.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let text = text.unwrap_or_default().split(';').next().unwrap_or_default();
    text.trim().to_ascii_lowercase()
}
