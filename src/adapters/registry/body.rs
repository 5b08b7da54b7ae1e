//! Bodies, held to a limit.

use reqwest::Response;

use super::sender::RegistryRequest;
use crate::adapters::network::NetworkError;
use crate::adapters::network::egress::host_of;
use crate::pipeline::ports::RegistryError;

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
    while let Some(piece) = next(&mut response).await? {
        if (body.len() + piece.len()) as u64 > limit {
            return Err(request.too_large(limit));
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
