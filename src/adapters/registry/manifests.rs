//! Manifests and the digests of tags.

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response};

use super::endpoint::authority;
use super::exchange::{Call, Exchange};
use super::failure;
use super::observer::RequestKind;
use crate::domain::access::Access;
use crate::domain::artifact::MAX_MANIFEST_BYTES;
use crate::domain::digest::Digest;
use crate::domain::reference::{Repository, Tag};
use crate::pipeline::ports::{ManifestName, RawManifest, RegistryError};

/// What we can read. Without the OCI types Docker Hub refuses OCI manifests; without Docker's, older images are hidden.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// The digest that a tag points at: by HEAD, which Docker Hub does not count as a pull, or by GET where HEAD gives none.
/// The header is only a pin: what it names is fetched by digest and hashed by us.
pub(super) async fn resolve(
    exchange: &Exchange,
    repository: &Repository,
    tag: &Tag,
    access: &Access,
) -> Result<Digest, RegistryError> {
    let name = ManifestName::Tag(tag.clone());
    let call = Call {
        method: Method::HEAD,
        ..call(repository, &name, access)?
    };
    match exchange.send(&call).await {
        Ok(response) => {
            if let Some(digest) = header_digest(&response) {
                return Ok(digest);
            }
        }
        // A registry that cannot do HEAD says so in one of these ways.
        Err(RegistryError::Protocol { .. }) => {}
        Err(error) => return Err(error),
    }
    fetch(exchange, repository, &name, access)
        .await
        .map(|manifest| manifest.digest)
}

/// A manifest, hashed by us.
pub(super) async fn fetch(
    exchange: &Exchange,
    repository: &Repository,
    name: &ManifestName,
    access: &Access,
) -> Result<RawManifest, RegistryError> {
    let call = call(repository, name, access)?;
    let response = exchange.send(&call).await?;
    let media_type = media_type(&response);
    let bytes = failure::body(response, &call.what, MAX_MANIFEST_BYTES).await?;
    let digest = Digest::of(&bytes);
    match name {
        ManifestName::Digest(expected) if *expected != digest => Err(RegistryError::DigestMismatch {
            host: authority(&call.url),
            what: call.what,
            expected: *expected,
            actual: digest,
        }),
        _ => Ok(RawManifest {
            digest,
            media_type,
            bytes,
        }),
    }
}

fn call<'a>(repository: &'a Repository, name: &ManifestName, access: &'a Access) -> Result<Call<'a>, RegistryError> {
    let what = match name {
        ManifestName::Tag(tag) => format!("{}:{tag}", repository.path()),
        ManifestName::Digest(digest) => format!("{}@{digest}", repository.path()),
    };
    let call = Call::get(
        repository,
        access,
        RequestKind::Manifest,
        &format!("manifests/{name}"),
        what,
    )?;
    Ok(Call {
        accept: Some(ACCEPT),
        ..call
    })
}

fn header_digest(response: &Response) -> Option<Digest> {
    response
        .headers()
        .get("docker-content-digest")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn media_type(response: &Response) -> String {
    let header = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    header
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .chars()
        .take(255)
        .collect()
}
