//! Downloads of blobs: streamed through the hash to disk, resumed where the connection broke.

use std::io;
use std::sync::Arc;

use reqwest::header::{CONTENT_RANGE, HeaderMap};
use reqwest::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::body;
use super::convert::{reserve, storage};
use super::observer::RequestKind;
use super::sender::RegistryRequest;
use super::session::Session;
use super::store::{BlobStore, Unfinished};
use crate::adapters::network::retry;
use crate::domain::artifact::Descriptor;
use crate::domain::bundle::Content;
use crate::domain::digest::{Digest, Hasher};
use crate::pipeline::ports::RegistryError;

/// The blob, from the store or the registry.
pub(super) async fn get(
    session: &Session<'_>,
    store: &BlobStore,
    descriptor: &Descriptor,
) -> Result<Arc<dyn Content>, RegistryError> {
    let Descriptor { digest, size, .. } = descriptor;
    let stored = store.get(&session.access_key, digest, *size);
    session.sender.observer.blob_cache(stored.is_some());
    if let Some(stored) = stored {
        return Ok(Arc::new(stored));
    }
    let mut request = session.request(RequestKind::Blob, session.endpoint.blob(digest), &format!("@{digest}"));
    request.accept = &["*/*"];
    let download = download(session, store, &mut request, *size).await?;
    let (unfinished, actual) = download.done().await.map_err(storage)?;
    if actual != *digest {
        return Err(RegistryError::DigestMismatch {
            host: request.host,
            resource: request.resource,
            expected: *digest,
            actual,
        });
    }
    let stored = unfinished.finish(&session.access_key, digest).map_err(storage)?;
    Ok(Arc::new(stored))
}

/// All bytes of the blob, from as many connections as it may take.
async fn download<'a>(
    session: &Session<'_>,
    store: &'a BlobStore,
    request: &mut RegistryRequest,
    size: u64,
) -> Result<Download<'a>, RegistryError> {
    let unfinished = store.begin(size).map_err(|error| reserve(error, request))?;
    let mut download = Download::begin(unfinished).map_err(storage)?;
    let mut attempt = 1;
    loop {
        request.from = download.written;
        let response = session.send(request).await?;
        match download.take(session, request, response, size).await {
            Err(RegistryError::Unreachable { .. }) if attempt < retry::ATTEMPTS => {
                tokio::time::sleep(retry::pause(attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
            Ok(()) => return Ok(download),
        }
    }
}

/// A blob on its way.
struct Download<'a> {
    unfinished: Unfinished<'a>,
    file: File,
    hasher: Hasher,
    written: u64,
}

impl<'a> Download<'a> {
    fn begin(unfinished: Unfinished<'a>) -> io::Result<Self> {
        Ok(Self {
            file: File::from_std(unfinished.reopen()?),
            unfinished,
            hasher: Hasher::default(),
            written: 0,
        })
    }

    /// Takes in a response; more than `size` bytes are never written, whatever is declared.
    async fn take(
        &mut self,
        session: &Session<'_>,
        request: &RegistryRequest,
        mut response: Response,
        size: u64,
    ) -> Result<(), RegistryError> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(response.headers(), self.written) => {}
            // The registry does not resume, and sends everything again.
            StatusCode::OK => self.restart().await.map_err(storage)?,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if self.written > 0 => {
                self.restart().await.map_err(storage)?;
                return Err(RegistryError::Unreachable {
                    host: request.host.clone(),
                    cause: "the download cannot be resumed where it broke off".to_owned(),
                });
            }
            status => return Err(request.unexpected(status)),
        }
        let left = size - self.written;
        if response.content_length().is_some_and(|declared| declared > left) {
            return Err(request.too_large(size));
        }
        while let Some(piece) = body::next(&mut response).await? {
            if piece.len() as u64 > size - self.written {
                return Err(request.too_large(size));
            }
            self.file.write_all(&piece).await.map_err(storage)?;
            self.hasher.update(&piece);
            self.written += piece.len() as u64;
            session.sender.observer.downloaded(piece.len() as u64);
        }
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.file.rewind().await?;
        self.file.set_len(0).await?;
        self.hasher = Hasher::default();
        self.written = 0;
        Ok(())
    }

    async fn done(mut self) -> io::Result<(Unfinished<'a>, Digest)> {
        self.file.flush().await?;
        Ok((self.unfinished, self.hasher.finish()))
    }
}

/// Whether `Content-Range: bytes first-last/size` begins where we stopped. Source: RFC 9110, section 14.4.
fn begins_at(headers: &HeaderMap, first: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
    first > 0 && range.is_some_and(|(start, _)| start.parse() == Ok(first))
}
