//! Lists that may be long: tags and referrers.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::header::LINK;
use reqwest::{Response, Url};
use serde::Deserialize;

use super::endpoint::same_origin;
use super::exchange::{Call, Exchange};
use super::failure;
use super::manifests;
use super::observer::RequestKind;
use crate::domain::access::Access;
use crate::domain::artifact::{Descriptor, MAX_MANIFEST_BYTES};
use crate::domain::digest::Digest;
use crate::domain::reference::{Repository, Tag};
use crate::pipeline::ports::{ManifestName, RegistryError};

/// Largest page of tags, in bytes.
const MAX_PAGE_BYTES: u64 = 1 << 20;
/// Most tags that a repository may have.
const MAX_TAGS: usize = 10_000;
/// Most pages of a list of tags.
const MAX_TAG_PAGES: usize = 100;
/// Most things that may refer to one image.
const MAX_REFERRERS: usize = 50;
/// Most pages of a list of referrers.
const MAX_REFERRER_PAGES: usize = 10;

#[derive(Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<IndexEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexEntry {
    media_type: String,
    digest: Digest,
    size: u64,
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// All tags of a repository. Tags that break the grammar cannot be asked for and are left out.
pub(super) async fn tags(
    exchange: &Exchange,
    repository: &Repository,
    access: &Access,
) -> Result<Vec<Tag>, RegistryError> {
    let what = format!("tags of {}", repository.path());
    let mut call = Call::get(repository, access, RequestKind::Tags, "tags/list?n=1000", what)?;
    let mut tags = Vec::new();
    let mut asked = BTreeSet::new();
    for _ in 0..MAX_TAG_PAGES {
        asked.insert(call.url.clone());
        let response = exchange.send(&call).await?;
        let next = next_page(&response, &call)?;
        let bytes = failure::body(response, &call.what, MAX_PAGE_BYTES).await?;
        let page: TagPage = serde_json::from_slice(&bytes)
            .map_err(|_| failure::protocol(&call.url, &call.what, "the list is not the JSON it should be"))?;
        tags.extend(page.tags.into_iter().flatten().filter_map(|tag| tag.parse().ok()));
        if tags.len() > MAX_TAGS {
            return Err(failure::protocol(&call.url, &call.what, "more than 10000 tags"));
        }
        match next {
            // Some registries ignore where the next page should begin and would go on for ever.
            Some(next) if asked.contains(&next) => {
                return Err(failure::protocol(
                    &call.url,
                    &call.what,
                    "the pages of the list go in a circle",
                ));
            }
            Some(next) => call.url = next,
            None => return Ok(tags),
        }
    }
    Err(failure::protocol(&call.url, &call.what, "more than 100 pages"))
}

/// What refers to a digest. A registry without the API answers 404, and GHCR redirects to its web pages; then the
/// fallback tag counts. Every other failure is one: it must not look like an image without signatures.
pub(super) async fn referrers(
    exchange: &Exchange,
    repository: &Repository,
    digest: &Digest,
    access: &Access,
) -> Result<Vec<Descriptor>, RegistryError> {
    let what = format!("referrers of {}@{digest}", repository.path());
    let mut call = Call::get(
        repository,
        access,
        RequestKind::Referrers,
        &format!("referrers/{digest}"),
        what,
    )?;
    call.accept = Some("application/vnd.oci.image.index.v1+json");
    let mut found = Vec::new();
    for page in 0..MAX_REFERRER_PAGES {
        let response = match exchange.send(&call).await {
            Ok(response) if page == 0 && !same_origin(response.url(), &call.url) => {
                return by_tag(exchange, repository, digest, access).await;
            }
            Err(RegistryError::NotFound { .. }) if page == 0 => {
                return by_tag(exchange, repository, digest, access).await;
            }
            ended => ended?,
        };
        let next = next_page(&response, &call)?;
        let bytes = failure::body(response, &call.what, MAX_MANIFEST_BYTES).await?;
        found.extend(entries(&bytes, &call)?);
        if found.len() > MAX_REFERRERS {
            return Err(failure::protocol(&call.url, &call.what, "more than 50 referrers"));
        }
        match next {
            Some(next) => call.url = next,
            None => return Ok(found),
        }
    }
    Err(failure::protocol(&call.url, &call.what, "more than 10 pages"))
}

/// Source: OCI distribution specification, "Referrers tag schema".
async fn by_tag(
    exchange: &Exchange,
    repository: &Repository,
    digest: &Digest,
    access: &Access,
) -> Result<Vec<Descriptor>, RegistryError> {
    let name = ManifestName::Tag(Tag::referrers_fallback(digest));
    let what = format!("{}:{name}", repository.path());
    let call = Call::get(
        repository,
        access,
        RequestKind::Referrers,
        &format!("manifests/{name}"),
        what,
    )?;
    let found = match manifests::fetch(exchange, repository, &name, access).await {
        Ok(manifest) => entries(&manifest.bytes, &call)?,
        Err(RegistryError::NotFound { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    if found.len() > MAX_REFERRERS {
        return Err(failure::protocol(&call.url, &call.what, "more than 50 referrers"));
    }
    Ok(found)
}

fn entries(bytes: &[u8], call: &Call<'_>) -> Result<Vec<Descriptor>, RegistryError> {
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|_| failure::protocol(&call.url, &call.what, "the list is not the image index it should be"))?;
    let descriptors = index.manifests.into_iter().map(|entry| Descriptor {
        media_type: entry.media_type,
        digest: entry.digest,
        size: entry.size,
        artifact_type: entry.artifact_type,
        annotations: entry.annotations.unwrap_or_default(),
    });
    Ok(descriptors.collect())
}

/// The URL of `Link: <…>; rel="next"` (RFC 8288), which must stay in the same list of the same registry.
fn next_page(response: &Response, call: &Call<'_>) -> Result<Option<Url>, RegistryError> {
    let headers = response
        .headers()
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let Some(target) = headers.flat_map(|header| header.split(',')).find_map(next_target) else {
        return Ok(None);
    };
    let broken = || failure::protocol(&call.url, &call.what, "the next page of the list is elsewhere");
    let url = call.url.join(target).map_err(|_| broken())?;
    if same_origin(&url, &call.url) && url.path() == call.url.path() {
        Ok(Some(url))
    } else {
        Err(broken())
    }
}

fn next_target(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').map(str::trim).any(|parameter| {
        parameter.split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
        })
    });
    next.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r#"</v2/p/tags/list?last=b&n=2>; rel="next""#, Some("/v2/p/tags/list?last=b&n=2"))]
    #[case("</v2/p/tags/list?last=b>; rel=next", Some("/v2/p/tags/list?last=b"))]
    #[case(r#"</v2/p/tags/list>; rel="prev""#, None)]
    #[case("nonsense", None)]
    fn reads_links(#[case] header: &str, #[case] target: Option<&str>) {
        assert_eq!(next_target(header), target);
    }
}
