//! Limits on a machine's traffic, as plain data that every VMM driver can take.

use serde::{Deserialize, Serialize};

/// The limits of a machine's traffic; `None` is no limit.
///
/// A VMM with a limiter of its own (Firecracker) takes [`RateLimit::token_bucket`], and its machine is attached without
/// limits; for others (QEMU) the packet filter holds the machine to the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkLimits {
    /// The traffic that the machine sends.
    pub from_guest: Option<RateLimit>,
    /// The traffic that the machine receives.
    pub to_guest: Option<RateLimit>,
}

/// A rate, and how much may go at once after a pause. The packet filter lets a second's worth go at once where the
/// burst is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Figures", into = "Figures")]
pub struct RateLimit {
    bytes_per_second: u64,
    burst_bytes: u64,
}

/// A rate that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network limit is {} to {} bytes a second with a burst of {} to {} bytes",
    RateLimit::RATES.start(), RateLimit::RATES.end(), RateLimit::BURSTS.start(), RateLimit::BURSTS.end()
)]
pub struct InvalidRateLimit;

/// The same as the token bucket of Firecracker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes that the full bucket holds.
    pub size: u64,
    /// Milliseconds in which the empty bucket becomes full.
    pub refill_time_ms: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    bytes_per_second: u64,
    burst_bytes: u64,
}

// === impl RateLimit ===

impl RateLimit {
    /// The rates that there are: 1 KiB a second keeps a connection alive, and beyond 100 GB nothing is limited.
    pub const RATES: std::ops::RangeInclusive<u64> = 1024..=100_000_000_000;
    /// The bursts that there are. Less than one segmented packet, which the kernel carries as one, would let nothing
    /// through at all.
    pub const BURSTS: std::ops::RangeInclusive<u64> = 131_072..=4_000_000_000;

    /// A limit.
    ///
    /// # Errors
    /// Where a figure is outside of [`Self::RATES`] or [`Self::BURSTS`].
    pub fn new(bytes_per_second: u64, burst_bytes: u64) -> Result<Self, InvalidRateLimit> {
        let makes_sense = Self::RATES.contains(&bytes_per_second) && Self::BURSTS.contains(&burst_bytes);
        makes_sense.then_some(Self { bytes_per_second, burst_bytes }).ok_or(InvalidRateLimit)
    }

    /// Bytes a second, over time.
    pub fn bytes_per_second(self) -> u64 {
        self.bytes_per_second
    }

    /// Bytes at once, after a pause.
    pub fn burst_bytes(self) -> u64 {
        self.burst_bytes
    }

    /// The same as a token bucket.
    pub fn token_bucket(self) -> TokenBucket {
        let refill_time_ms = self.burst_bytes.saturating_mul(1000).div_ceil(self.bytes_per_second);
        TokenBucket { size: self.burst_bytes, refill_time_ms: refill_time_ms.max(1) }
    }
}

impl TryFrom<Figures> for RateLimit {
    type Error = InvalidRateLimit;

    fn try_from(figures: Figures) -> Result<Self, InvalidRateLimit> {
        Self::new(figures.bytes_per_second, figures.burst_bytes)
    }
}

impl From<RateLimit> for Figures {
    fn from(limit: RateLimit) -> Self {
        Self { bytes_per_second: limit.bytes_per_second, burst_bytes: limit.burst_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_bucket_refills_at_the_rate() {
        let bucket = RateLimit::new(1_000_000, 500_000).unwrap().token_bucket();
        assert_eq!(bucket, TokenBucket { size: 500_000, refill_time_ms: 500 });
    }

    #[test]
    fn a_limit_that_lets_nothing_through_is_refused() {
        assert_eq!(RateLimit::new(0, 1 << 20), Err(InvalidRateLimit));
        assert_eq!(RateLimit::new(1 << 20, 1500), Err(InvalidRateLimit));
        assert!(serde_json::from_str::<RateLimit>(r#"{"bytes_per_second":1,"burst_bytes":1}"#).is_err());
    }
}
