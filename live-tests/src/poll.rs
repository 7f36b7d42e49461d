//! Waiting for a condition rather than for a time.

use std::{future::Future, time::Duration};

use anyhow::bail;
use tokio::time::Instant;

/// Asks `probe` until it yields a value.
///
/// # Errors
/// When `at_most` has passed; the error holds the last answer of the probe.
pub async fn until<T, F>(what: &str, at_most: Duration, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Result<T, String>>>,
{
    let deadline = Instant::now() + at_most;
    loop {
        let last = match probe().await? {
            Ok(value) => return Ok(value),
            Err(state) => state,
        };
        if Instant::now() > deadline {
            bail!("{what}: not within {at_most:?}; last seen: {last}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
