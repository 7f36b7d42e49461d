//! The versions of the protocol, by era.

/// The versions of the older era.
pub(crate) const LEGACY_VERSIONS: [&str; 5] = ["2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", NEWEST_LEGACY];

/// The version that we ask servers of the older era for.
pub(crate) const NEWEST_LEGACY: &str = "2025-11-25";

/// The newest version that we ask for ourselves.
pub(crate) const NEWEST: &str = "2026-07-28";
