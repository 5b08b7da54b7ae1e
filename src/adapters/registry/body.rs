//! Response bodies, limited in size.
//!
//! Many requests may wait for an answer at one time, so the limit of one body does not bound memory. A body that is larger
//! than most waits until few others of its kind are in memory. Whoever sends such bodies slowly must not hold up others
//! that do: while all places are taken, nobody keeps one for longer than [`PATIENCE`].

use std::time::Duration;

use reqwest::Response;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::sender::RegistryRequest;
use crate::adapters::network::NetworkError;
use crate::adapters::network::egress::host_of;
use crate::pipeline::ports::RegistryError;

/// Manifests and lists of tags are a few kilobytes. What is longer than this counts as large.
const LARGE: usize = 64 << 10;
/// Large bodies read at one time, over all registries.
static LARGE_BODIES: Semaphore = Semaphore::const_new(8);
/// How long a large body may take while others may be waiting, and how often that is looked at afterwards.
const PATIENCE: Duration = Duration::from_secs(2);

/// The whole body, if it has at most `limit` bytes.
pub(super) async fn read(
    request: &RegistryRequest,
    mut response: Response,
    limit: u64,
) -> Result<Vec<u8>, RegistryError> {
    let declared = response.content_length().unwrap_or_default();
    if declared > limit {
        return Err(request.too_large(limit));
    }
    let mut body = Vec::new();
    append(&mut body, LARGE, request, &mut response, limit).await?;
    if body.len() < LARGE {
        return Ok(body);
    }
    let host = host_of(response.url());
    // An error would mean that the semaphore was closed, which nothing does.
    let _place = LARGE_BODIES.acquire().await.ok();
    tokio::select! {
        rest = append(&mut body, usize::MAX, request, &mut response, limit) => rest?,
        () = until_in_the_way(&LARGE_BODIES) => return Err(NetworkError::timed_out(&host).into()),
    }
    Ok(body)
}

/// Reads to the end, or until `body` has `enough` bytes.
async fn append(
    body: &mut Vec<u8>,
    enough: usize,
    request: &RegistryRequest,
    response: &mut Response,
    limit: u64,
) -> Result<(), RegistryError> {
    while body.len() < enough
        && let Some(piece) = next(response).await?
    {
        if (body.len() + piece.len()) as u64 > limit {
            return Err(request.too_large(limit));
        }
        body.extend_from_slice(&piece);
    }
    Ok(())
}

/// Waits until whoever has a place had it for long enough, and others may be waiting for one.
async fn until_in_the_way(places: &Semaphore) {
    loop {
        sleep(PATIENCE).await;
        if places.available_permits() == 0 {
            return;
        }
    }
}

/// The next piece of the body.
pub(super) async fn next(
    response: &mut Response,
) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>, RegistryError> {
    let piece = response.chunk().await;
    piece.map_err(|error| NetworkError::from_request(&host_of(response.url()), &error).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_keeps_a_place_only_while_others_are_free() {
        let places = Semaphore::new(2);
        let _first = places.acquire().await.unwrap();
        let waited = timeout(Duration::from_mins(10), until_in_the_way(&places)).await;
        assert!(waited.is_err());
        let _second = places.acquire().await.unwrap();
        let waited = timeout(PATIENCE * 2, until_in_the_way(&places)).await;
        assert!(waited.is_ok());
    }
}
