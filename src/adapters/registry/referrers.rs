//! What refers to a manifest: signatures and attestations.
//!
//! Source: OCI distribution specification, "Listing Referrers". Only 404 says that a registry has no referrers API. Any
//! other failure must not look like an empty list: a registry that hides a signature would pass for one that has none.
//! One exception: GHCR answers 303 to a page on another host, which is no response of the API either.

use std::collections::BTreeMap;

use reqwest::StatusCode;

use super::manifests;
use super::observer::RequestKind;
use super::paging::Pages;
use super::session::{FetchedResponse, Session};
use crate::adapters::network::redirect;
use crate::domain::artifact::{Descriptor, MAX_MANIFEST_BYTES, OCI_INDEX};
use crate::domain::bounded::BoundedList;
use crate::domain::digest::Digest;
use crate::domain::reference::Tag;
use crate::pipeline::ports::{ManifestName, RegistryError};

/// Most referrers of one manifest.
const MAX_REFERRERS: usize = 50;
/// Most pages they may be spread over.
const MAX_PAGES: usize = 10;
/// Longest media type. Source: RFC 6838, section 4.2: twice 127 characters and a slash.
const MAX_MEDIA_TYPE_BYTES: usize = 255;

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u8,
    media_type: Option<String>,
    /// `null` if a Go program wrote an empty list.
    manifests: Option<BoundedList<Entry, MAX_REFERRERS>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    artifact_type: Option<String>,
}

/// The referrers, by the API or by the fallback tag.
pub(super) async fn list(session: &Session<'_>, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
    let mut request = session.request(
        RequestKind::Referrers,
        session.endpoint.referrers(digest),
        &format!("@{digest}"),
    );
    request.accept = &[OCI_INDEX];
    let mut pages = Pages::new(request.url.clone(), MAX_PAGES);
    let mut found = Vec::new();
    loop {
        let response = session.fetch(&request, MAX_MANIFEST_BYTES).await?;
        if is_without_api(session, &response) && found.is_empty() {
            return by_tag(session, digest).await;
        }
        if response.status != StatusCode::OK {
            return Err(request.unexpected(response.status));
        }
        let media_type = manifests::media_type(&response.headers);
        found.extend(parse(&media_type, &response.body).map_err(|cause| request.protocol(cause))?);
        if found.len() > MAX_REFERRERS {
            return Err(request.protocol(TOO_MANY));
        }
        match pages.next(&response.headers).map_err(|cause| request.protocol(cause))? {
            Some(next) => request.url = next,
            None => return Ok(found),
        }
    }
}

const TOO_MANY: &str = "there are more than 50 referrers";

fn is_without_api(session: &Session<'_>, response: &FetchedResponse) -> bool {
    let root = session.endpoint.root();
    match response.status {
        StatusCode::NOT_FOUND => true,
        StatusCode::SEE_OTHER => {
            redirect::target(root, &response.headers).is_ok_and(|target| target.host_str() != root.host_str())
        }
        _ => false,
    }
}

async fn by_tag(session: &Session<'_>, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
    let tag = Tag::referrers_fallback(digest);
    let manifest = match manifests::get(session, &ManifestName::Tag(tag.clone())).await {
        Err(RegistryError::NotFound { .. }) => return Ok(Vec::new()),
        manifest => manifest?,
    };
    let broken = |cause: &str| RegistryError::Protocol {
        host: session.endpoint.host().to_owned(),
        resource: format!("{}:{tag}", session.endpoint.path()),
        cause: cause.to_owned(),
    };
    parse(&manifest.media_type, &manifest.bytes).map_err(broken)
}

fn parse(media_type: &str, body: &[u8]) -> Result<Vec<Descriptor>, &'static str> {
    let index: Index = serde_json::from_slice(body).map_err(|_| "the list of referrers cannot be read")?;
    let is_index = media_type == OCI_INDEX && index.media_type.as_deref().is_none_or(|own| own == OCI_INDEX);
    if !is_index || index.schema_version != 2 {
        return Err("the list of referrers is not an image index");
    }
    // What is longer is no media type, and would be kept while the next page is waited for.
    let is_media_type = |text: &String| text.len() <= MAX_MEDIA_TYPE_BYTES;
    let descriptor = |entry: Entry| Descriptor {
        media_type: Some(entry.media_type).filter(is_media_type).unwrap_or_default(),
        digest: entry.digest,
        size: entry.size,
        artifact_type: entry.artifact_type.filter(is_media_type),
        // The list's own, which say nothing that the manifests do not: the manifests are what is read.
        annotations: BTreeMap::new(),
    };
    let entries = index.manifests.unwrap_or_default().complete().map_err(|_| TOO_MANY)?;
    Ok(entries.into_iter().map(descriptor).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_too_long_for_a_media_type_is_not_kept() {
        let text = "x".repeat(MAX_MEDIA_TYPE_BYTES + 1);
        let listed = json!({ "mediaType": text, "digest": Digest::of(b""), "size": 1, "artifactType": text });
        let index = json!({ "schemaVersion": 2, "manifests": [listed] }).to_string();
        let found = parse(OCI_INDEX, index.as_bytes()).unwrap();
        assert_eq!((found[0].media_type.as_str(), &found[0].artifact_type), ("", &None));
    }
}
