//! Response bodies, limited in size.
//!
//! Many requests may wait for a response at one time, so the limit of one body does not bound memory. A body that is larger
//! than most waits until few others of its kind are in memory; tenants take turns. A registry that sends such bodies
//! slowly must not delay other tenants: while another tenant waits, the one with the most places keeps none of them for
//! longer than [`PATIENCE`].

use std::time::Duration;

use reqwest::Response;
use tokio::time::sleep;

use super::sender::{HttpSender, RegistryRequest};
use crate::adapters::network::NetworkError;
use crate::adapters::network::egress::host_of;
use crate::domain::access::Tenant;
use crate::pipeline::fair_semaphore::FairSemaphore;
use crate::pipeline::ports::RegistryError;

/// Manifests and lists of tags are a few kilobytes. What is longer than this counts as large.
const LARGE: usize = 64 << 10;
/// Large bodies read at one time, over all registries.
pub(super) const LARGE_BODIES: usize = 8;
/// How long a large body may take while others may be waiting, and how often that is looked at afterwards.
const PATIENCE: Duration = Duration::from_secs(2);

/// The whole body, if it has at most `limit` bytes.
pub(super) async fn read(
    sender: &HttpSender,
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
    let (places, tenant) = (&sender.large_bodies, &sender.tenant);
    let _place = places.acquire(tenant).await;
    tokio::select! {
        rest = append(&mut body, usize::MAX, request, &mut response, limit) => rest?,
        () = until_contended(places, tenant) => return Err(NetworkError::timed_out(&host).into()),
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

/// Waits until this tenant had its place for long enough, and should give it to another.
async fn until_contended(places: &FairSemaphore, tenant: &Tenant) {
    loop {
        sleep(PATIENCE).await;
        if places.is_contended(tenant) {
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
    async fn a_slow_tenant_keeps_a_place_only_until_another_waits_for_it() {
        let places = FairSemaphore::new(1);
        let (slow, other) = (Tenant::from("slow"), Tenant::from("other"));
        let _place = places.acquire(&slow).await;
        let waited = timeout(Duration::from_mins(10), until_contended(&places, &slow)).await;
        assert!(waited.is_err());
        let waits = places.acquire(&other);
        tokio::select! {
            () = until_contended(&places, &slow) => {}
            _ = waits => panic!("there is no second place"),
            () = sleep(PATIENCE * 2) => panic!("it keeps its place"),
        }
    }
}
