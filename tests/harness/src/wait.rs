//! Waiting, with an end.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Calls `attempt` until it gives a value, every `pause`, for `limit` at most; `what` names it in the error.
///
/// # Errors
/// When `limit` passed: with the last error of `attempt`, if there was one. `Ok(None)` means "not yet".
pub async fn until<T, F, Attempt>(what: &str, limit: Duration, pause: Duration, mut attempt: Attempt) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
    Attempt: FnMut() -> F,
{
    let end = Instant::now() + limit;
    loop {
        let outcome = attempt().await;
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if Instant::now() >= end {
            match outcome {
                Err(error) => return Err(error.context(format!("{what}: not in {limit:?}"))),
                Ok(_) => bail!("{what}: not in {limit:?}"),
            }
        }
        sleep(pause).await;
    }
}
