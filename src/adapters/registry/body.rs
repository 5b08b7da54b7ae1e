//! Response bodies, limited in size.
//!
//! Many requests may wait for an answer at one time, so the limit of one body does not bound memory. A body that is
//! larger than any honest one waits until few others of its kind are in memory; a registry that sends such bodies
//! slowly delays only others that do.

use reqwest::Response;
use tokio::sync::Semaphore;

use super::sender::RegistryRequest;
use crate::adapters::network::NetworkError;
use crate::adapters::network::egress::host_of;
use crate::pipeline::ports::RegistryError;

/// Manifests and lists of tags are a few kilobytes. What is longer than this counts as large.
const LARGE: usize = 64 << 10;
/// Large bodies read at one time, over all registries.
static LARGE_BODIES: Semaphore = Semaphore::const_new(8);

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
    let mut permit = None;
    while let Some(piece) = next(&mut response).await? {
        if (body.len() + piece.len()) as u64 > limit {
            return Err(request.too_large(limit));
        }
        if permit.is_none() && body.len() + piece.len() > LARGE {
            permit = LARGE_BODIES.acquire().await.ok();
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The next piece of the body.
pub(super) async fn next(
    response: &mut Response,
) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>, RegistryError> {
    let piece = response.chunk().await;
    piece.map_err(|error| NetworkError::from_request(&host_of(response.url()), &error).into())
}
