//! Blobs: streamed through the hash to disk, never more than announced, resumed where a connection broke.

use std::io::Write as _;
use std::sync::Arc;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use tempfile::NamedTempFile;

use super::endpoint::authority;
use super::exchange::{Call, Exchange};
use super::failure;
use super::observer::RequestKind;
use super::store::{self, Store};
use crate::domain::access::Access;
use crate::domain::artifact::Descriptor;
use crate::domain::bundle::{Content, Limits};
use crate::domain::digest::{Digest, Hasher};
use crate::domain::reference::Repository;
use crate::pipeline::ports::RegistryError;

/// Connections that one blob may take.
const MAX_CONNECTIONS: u32 = 5;

/// What has arrived.
struct Download {
    file: NamedTempFile,
    hasher: Hasher,
    received: u64,
}

/// A blob, from the store or from the registry.
pub(super) async fn fetch(
    exchange: &Exchange,
    store: &Store,
    repository: &Repository,
    descriptor: &Descriptor,
    access: &Access,
) -> Result<Arc<dyn Content>, RegistryError> {
    let Descriptor { digest, size, .. } = descriptor;
    let what = format!("blob {digest} of {}", repository.path());
    // The host is checked before the store is asked: a registry that is not allowed any more is not served from disk.
    let call = Call::get(repository, access, RequestKind::Blob, &format!("blobs/{digest}"), what)?;
    let limit = Limits::default().compressed_bytes;
    if *size > limit {
        return Err(RegistryError::TooLarge {
            host: authority(&call.url),
            what: call.what,
            limit,
        });
    }
    let scope = access.scope(repository);
    let found = store.find(&scope, digest, *size);
    exchange.observer.blob_cache(found.is_some());
    if let Some(content) = found {
        return Ok(content);
    }
    let download = receive(exchange, store, call.clone(), *size).await?;
    let actual = download.hasher.finish();
    if actual != *digest || download.received != *size {
        return Err(mismatch(&call, digest, actual));
    }
    store.keep(&scope, digest, *size, download.file.into_temp_path())
}

async fn receive(exchange: &Exchange, store: &Store, mut call: Call<'_>, size: u64) -> Result<Download, RegistryError> {
    let mut download = Download {
        file: store.partial()?,
        hasher: Hasher::default(),
        received: 0,
    };
    let mut connections = 1;
    loop {
        let response = exchange.send(&call).await?;
        if call.from > 0 && !resumes(&response, call.from) {
            // The registry does not resume: from the beginning, into a new file.
            download = Download {
                file: store.partial()?,
                hasher: Hasher::default(),
                received: 0,
            };
            if response.status() == StatusCode::PARTIAL_CONTENT {
                return Err(failure::protocol(
                    &call.url,
                    &call.what,
                    "another range than the one asked for",
                ));
            }
        }
        let broken = match copy(exchange, response, &mut download, size, &call).await {
            Ok(()) if download.received == size => return Ok(download),
            // An end that looks proper, though bytes are missing: chunked bodies can be cut that way.
            Ok(()) => RegistryError::Unreachable {
                host: authority(&call.url),
                cause: format!("the answer ended after {} of {size} bytes", download.received),
            },
            Err(error) => error,
        };
        if connections == MAX_CONNECTIONS || !matches!(broken, RegistryError::Unreachable { .. }) {
            return Err(broken);
        }
        tracing::debug!(received = download.received, size, error = %broken, "resuming a blob");
        connections += 1;
        call.from = download.received;
    }
}

async fn copy(
    exchange: &Exchange,
    mut response: Response,
    download: &mut Download,
    size: u64,
    call: &Call<'_>,
) -> Result<(), RegistryError> {
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failure::transport(response_url(call), error))?
    {
        download.received += chunk.len() as u64;
        if download.received > size {
            return Err(RegistryError::TooLarge {
                host: authority(&call.url),
                what: call.what.clone(),
                limit: size,
            });
        }
        exchange.observer.downloaded(chunk.len() as u64);
        download.hasher.update(&chunk);
        download.file.write_all(&chunk).map_err(|error| store::failed(&error))?;
    }
    Ok(())
}

/// Errors name the registry that was asked, wherever it redirected to: that is the host the user knows.
fn response_url<'a>(call: &'a Call<'_>) -> &'a reqwest::Url {
    &call.url
}

/// Whether an answer goes on exactly at `from` (RFC 9110, section 14.4).
fn resumes(response: &Response, from: u64) -> bool {
    let range = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok())
        .unwrap_or_default();
    response.status() == StatusCode::PARTIAL_CONTENT && range.starts_with(&format!("bytes {from}-"))
}

fn mismatch(call: &Call<'_>, expected: &Digest, actual: Digest) -> RegistryError {
    RegistryError::DigestMismatch {
        host: authority(&call.url),
        what: call.what.clone(),
        expected: *expected,
        actual,
    }
}
