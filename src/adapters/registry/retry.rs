//! Short waits in place, and what a registry says about longer ones.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Response;
use reqwest::header::RETRY_AFTER;

use crate::pipeline::ports::RegistryError;

/// Attempts at one request.
const ATTEMPTS: u32 = 3;
/// The first wait between two; the next is twice as long. Chance takes up to half of each away.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// A registry that asks for longer than this is left alone, and the object waits in the queue instead of here.
const LONGEST_WAIT_IN_PLACE: Duration = Duration::from_secs(2);
/// What 429 without `Retry-After` means.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// What a registry may ask for: it must not stop us for days, nor make us hammer it.
const LEAST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_hours(1);

/// Repeats what may pass by itself.
pub(super) async fn retrying<T, F: Future<Output = Result<T, RegistryError>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, RegistryError> {
    let mut tried = 1;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let wait = match &error {
            RegistryError::Unreachable { .. } | RegistryError::Unavailable { .. } => backoff(tried),
            RegistryError::RateLimited { wait, .. } if *wait <= LONGEST_WAIT_IN_PLACE => *wait,
            _ => return Err(error),
        };
        if tried == ATTEMPTS {
            return Err(error);
        }
        tracing::debug!(tried, wait_ms = wait.as_millis(), %error, "trying the registry again");
        tokio::time::sleep(wait).await;
        tried += 1;
    }
}

fn backoff(tried: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(1 << tried.saturating_sub(1).min(8))
        .mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(value, Timestamp::now())
}

fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.clamp(LEAST_WAIT, MOST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::seconds("120", Some(120))]
    #[case::zero("0", Some(1))]
    #[case::days("999999", Some(3600))]
    #[case::date("Thu, 01 Jan 1970 00:01:30 GMT", Some(90))]
    #[case::past("Wed, 31 Dec 1969 00:00:00 GMT", Some(1))]
    #[case::negative("-5", None)]
    #[case::junk("soon", None)]
    fn reads_both_forms(#[case] value: &str, #[case] seconds: Option<u64>) {
        assert_eq!(
            parse_retry_after(value, Timestamp::UNIX_EPOCH),
            seconds.map(Duration::from_secs)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_three_attempts() {
        let mut attempts = 0;
        let result: Result<(), _> = retrying(|| {
            attempts += 1;
            std::future::ready(Err(RegistryError::Unreachable {
                host: "ghcr.io".into(),
                cause: "reset".into(),
            }))
        })
        .await;
        assert!(result.is_err());
        assert_eq!(attempts, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_in_place_for_a_registry_that_wants_long() {
        let mut attempts = 0;
        let started = tokio::time::Instant::now();
        let result: Result<(), _> = retrying(|| {
            attempts += 1;
            let wait = Duration::from_secs(3);
            std::future::ready(Err(RegistryError::RateLimited {
                host: "ghcr.io".into(),
                wait,
            }))
        })
        .await;
        assert!(result.is_err());
        assert_eq!((attempts, started.elapsed()), (1, Duration::ZERO));
    }
}
