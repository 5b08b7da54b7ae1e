//! How often and how long: `spec.interval` and `spec.timeout`.

use std::time::Duration;

use super::{OperatorOptions, ValidateError};
use crate::operator::api::spec::PolicyImageSpec;

/// The interval where none can be read: that of the schema where none is written.
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_mins(5);

/// The run's deadline where none is written, unless the interval is shorter.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);

/// The least and the most that `spec.timeout` may be.
const LEAST_TIMEOUT: (&str, Duration) = ("1s", Duration::from_secs(1));
const MOST_TIMEOUT: (&str, Duration) = ("10m", Duration::from_mins(10));

/// The deadline of any run where the administrator sets none.
pub const MAX_TIMEOUT: Duration = MOST_TIMEOUT.1;

/// Most characters of a duration, and most digits of one number in it.
const MAX_CHARACTERS: usize = 32;
const MAX_DIGITS: usize = 5;

/// `spec.interval`.
///
/// # Errors
/// [`ValidateError::ParseDuration`].
pub(super) fn interval(spec: &PolicyImageSpec) -> Result<Duration, ValidateError> {
    duration(
        "spec.interval",
        &spec.interval,
        ("5s", Duration::from_secs(5)),
        ("24h", Duration::from_hours(24)),
    )
}

/// `spec.interval`; of a spec that cannot be read, the default.
#[must_use]
pub fn interval_or_default(spec: &PolicyImageSpec) -> Duration {
    interval(spec).unwrap_or(DEFAULT_INTERVAL)
}

/// `spec.timeout`: how long one run may take.
///
/// # Errors
/// [`ValidateError`] where it does not parse or is longer than the interval.
pub(super) fn timeout(spec: &PolicyImageSpec) -> Result<Duration, ValidateError> {
    let interval = interval(spec)?;
    let Some(text) = &spec.timeout else {
        return Ok(DEFAULT_TIMEOUT.min(interval));
    };
    let timeout = duration("spec.timeout", text, LEAST_TIMEOUT, MOST_TIMEOUT)?;
    if timeout > interval {
        Err(ValidateError::CompareTimeout)
    } else {
        Ok(timeout)
    }
}

/// How long a run of an object with this spec may take; a spec that cannot be read has the default.
#[must_use]
pub fn deadline(spec: &PolicyImageSpec, options: OperatorOptions) -> Duration {
    timeout(spec).unwrap_or(DEFAULT_TIMEOUT).min(options.max_timeout)
}

/// The value of `--max-timeout`, which is bounded as `spec.timeout` is.
///
/// # Errors
/// [`ValidateError::ParseDuration`].
pub fn parse_max_timeout(text: &str) -> Result<Duration, ValidateError> {
    duration("--max-timeout", text, LEAST_TIMEOUT, MOST_TIMEOUT)
}

fn duration(
    field: &'static str,
    value: &str,
    (low, least): (&'static str, Duration),
    (high, most): (&'static str, Duration),
) -> Result<Duration, ValidateError> {
    parse_duration(value)
        .filter(|duration| (least..=most).contains(duration))
        .ok_or_else(|| ValidateError::ParseDuration {
            field,
            value: value.chars().take(40).collect(),
            low,
            high,
        })
}

/// Go's notation without signs and fractions: numbers, each followed by `h`, `m`, `s` or `ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > MAX_CHARACTERS {
        return None;
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > MAX_DIGITS {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let milliseconds: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
        total = total.checked_add(Duration::from_millis(part))?;
        rest = after;
    }
    Some(total)
}
