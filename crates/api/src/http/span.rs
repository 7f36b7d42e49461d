//! Spans of time in query strings.

use chrono::{DateTime, Utc};

/// A span of time, its ends where every database has them: in the years 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first instant of the span; `None` is from the beginning.
    pub(crate) since: Option<DateTime<Utc>>,
    /// The instant after its last; without an end.
    pub(crate) until: Option<DateTime<Utc>>,
}

impl Span {
    /// The span between two instants, either of which may be left out.
    pub(crate) fn of(since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Self {
        let (first, last) = (DateTime::UNIX_EPOCH, DateTime::from_timestamp(253_402_300_799, 0));
        let within = |at: DateTime<Utc>| at.clamp(first, last.unwrap_or(DateTime::UNIX_EPOCH));
        Self { since: since.map(within), until: until.map(within) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_that_no_database_has_are_moved_to_the_nearest_that_they_have() {
        let span = Span::of(Some(DateTime::<Utc>::MIN_UTC), Some(DateTime::<Utc>::MAX_UTC));
        let shown = [span.since, span.until].map(|at| at.map(|at| at.to_rfc3339()));
        assert_eq!(shown.map(Option::unwrap), ["1970-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"]);
    }
}
