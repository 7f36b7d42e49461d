//! The time of rows.

use chrono::{DateTime, SubsecRound as _, Utc};

/// Now, as precisely as every database keeps it.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
