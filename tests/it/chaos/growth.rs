//! Whether a process holds more and more.
//!
//! A bound on what it holds before and after says little: the one sample may be a peak, the other a trough. So a line is
//! laid through many samples of one process.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::Footprint;

/// Fewer samples of a process say nothing.
const SAMPLES: usize = 12;
/// The most that may be added between the first sample and the last, by the line through all.
const DESCRIPTORS: f64 = 20.0;
const BYTES: f64 = (16 << 20) as f64;

/// When it was, and what was held.
type Point = (f64, f64);

/// Samples of every process.
#[derive(Debug, Default)]
pub(super) struct Growth {
    descriptors: BTreeMap<i32, Vec<Point>>,
    bytes: BTreeMap<i32, Vec<Point>>,
}

impl Growth {
    pub(super) fn sample(&mut self, at: Duration, held: &BTreeMap<i32, Footprint>) {
        let at = at.as_secs_f64();
        for (process, held) in held {
            let descriptors = u32::try_from(held.descriptors).map_or(f64::MAX, f64::from);
            let kibibytes = u32::try_from(held.resident_bytes >> 10).map_or(f64::MAX, f64::from);
            self.descriptors.entry(*process).or_default().push((at, descriptors));
            self.bytes.entry(*process).or_default().push((at, kibibytes * 1024.0));
        }
    }

    /// Fails where a process grew, or none was seen for long enough.
    pub(super) fn check(&self) {
        let mut seen = 0;
        for (what, samples, limit) in [
            ("descriptors", &self.descriptors, DESCRIPTORS),
            ("bytes", &self.bytes, BYTES),
        ] {
            for (process, points) in samples.iter().filter(|(_, points)| points.len() >= SAMPLES) {
                let grown = grown(points);
                println!(
                    "process {process}: {grown:.0} {what} more after {} samples",
                    points.len()
                );
                assert!(grown < limit, "process {process} has {grown} {what} more: {points:?}");
                seen += 1;
            }
        }
        assert!(seen > 0, "no process lived for {SAMPLES} samples");
    }
}

/// By how much the line of least squares through `points` rises from the first to the last.
fn grown(points: &[Point]) -> f64 {
    let count = u32::try_from(points.len()).map_or(f64::MAX, f64::from);
    let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_at, mean_held) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(at, _)| (at - mean_at).powi(2)).sum();
    let common: f64 = points
        .iter()
        .map(|(at, held)| (at - mean_at) * (held - mean_held))
        .sum();
    let length = points.last().map_or(0.0, |point| point.0) - points.first().map_or(0.0, |point| point.0);
    if spread > 0.0 { common / spread * length } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(descriptors: impl Fn(usize) -> usize) -> Growth {
        let mut growth = Growth::default();
        for number in 0..SAMPLES {
            let held = Footprint {
                descriptors: descriptors(number),
                resident_bytes: 30 << 20,
            };
            growth.sample(Duration::from_secs(number as u64 * 10), &BTreeMap::from([(1, held)]));
        }
        growth
    }

    #[test]
    fn a_peak_is_no_growth() {
        after(|number| if number == SAMPLES / 2 { 200 } else { 40 }).check();
    }

    #[test]
    fn growth_is_told() {
        let growing = after(|number| 40 + 2 * number);
        let told = std::panic::catch_unwind(|| growing.check());
        assert!(told.is_err());
    }

    #[test]
    fn too_few_samples_are_no_proof() {
        let told = std::panic::catch_unwind(|| Growth::default().check());
        assert!(told.is_err());
    }
}
