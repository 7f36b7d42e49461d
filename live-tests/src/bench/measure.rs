//! The taking of samples.

use std::{future::Future, time::Instant};

use anyhow::ensure;

/// Durations in milliseconds (or whatever the row's unit is), sorted.
#[derive(Debug, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Sorts measured values. There must be at least one.
    ///
    /// # Errors
    /// When there is no value.
    pub fn new(mut values: Vec<f64>) -> anyhow::Result<Self> {
        ensure!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Ok(Self(values))
    }

    /// One value.
    pub fn single(value: f64) -> Self {
        Self(vec![value])
    }

    /// Subtracts `base` from each value.
    #[must_use]
    pub fn above(self, base: f64) -> Self {
        Self(self.0.into_iter().map(|value| value - base).collect())
    }

    /// The number of values.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of all do not exceed (nearest rank).
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).or(self.0.last()).copied().unwrap_or(f64::NAN)
    }
}

/// Runs `operation` `count` times, one after the other, after a few that are not counted; returns milliseconds.
///
/// # Errors
/// The first error of the operation.
pub async fn repeat<F>(count: usize, mut operation: impl FnMut() -> F) -> anyhow::Result<Samples>
where
    F: Future<Output = anyhow::Result<()>>,
{
    for _ in 0..count.div_ceil(10) {
        operation().await?;
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(millis(&mut operation).await?);
    }
    Samples::new(values)
}

/// Returns the time of one run, in milliseconds.
///
/// # Errors
/// The operation's error.
pub async fn millis<F>(operation: impl FnOnce() -> F) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let started = Instant::now();
    operation().await?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() -> anyhow::Result<()> {
        let samples = Samples::new(vec![4.0, 1.0, 3.0, 2.0])?;
        assert_eq!([50, 75, 99].map(|percent| samples.percentile(percent)), [2.0, 3.0, 4.0]);
        Ok(())
    }
}
