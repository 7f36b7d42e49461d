//! The `Range` header, for one range of bytes. Any other header is ignored, as RFC 9110 allows, and the whole file is
//! sent.

use axum::http::{HeaderMap, header};

/// A range of bytes in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteRange {
    /// `bytes=first-` or `bytes=first-last`.
    From { first: u64, last: Option<u64> },
    /// `bytes=-length`.
    Last { length: u64 },
}

/// The part of a file that is to be sent; both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Bytes { first: u64, last: u64 },
    Nothing,
}

impl ByteRange {
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(header::RANGE)?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
        let number = |digits: &str| digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'));
        match (first, last) {
            ("", length) => number(length).map(|length| Self::Last { length }),
            (first, "") => number(first).map(|first| Self::From { first, last: None }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
        }
    }

    /// Returns the part of a file of `size` bytes.
    pub(super) fn within(self, size: u64) -> Wanted {
        let (first, last) = match self {
            Self::From { first, last } => (first, last.unwrap_or(u64::MAX).min(size.saturating_sub(1))),
            Self::Last { length: 0 } => return Wanted::Nothing,
            Self::Last { length } => (size.saturating_sub(length), size.saturating_sub(1)),
        };
        if first < size { Wanted::Bytes { first, last } } else { Wanted::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_and_cut_to_the_file() {
        let cases = [
            ("bytes=0-0", Wanted::Bytes { first: 0, last: 0 }),
            ("bytes=2-", Wanted::Bytes { first: 2, last: 9 }),
            ("bytes=2-100", Wanted::Bytes { first: 2, last: 9 }),
            ("bytes=-3", Wanted::Bytes { first: 7, last: 9 }),
            ("bytes=-30", Wanted::Bytes { first: 0, last: 9 }),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
        ];
        for (text, wanted) in cases {
            assert_eq!(ByteRange::parse(text).map(|range| range.within(10)), Some(wanted), "{text}");
        }
        assert_eq!(ByteRange::parse("bytes=0-5").map(|range| range.within(0)), Some(Wanted::Nothing));
    }

    #[test]
    fn other_ranges_are_ignored() {
        for text in
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=+1-2", "bytes=a-b"]
        {
            assert_eq!(ByteRange::parse(text), None, "{text}");
        }
    }
}
