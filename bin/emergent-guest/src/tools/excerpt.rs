//! The part of a long line that shows where it matches.

use std::ops::Range;

/// The most characters of a line that are shown.
const LIMIT: usize = 2_000;

/// The bytes before a match that are shown with it, if the beginning of the line cannot be shown.
const BEFORE: usize = 200;

/// The sign for left-out text.
const GAP: &str = "…";

/// Returns a line, and whether parts of it are left out. Of a line that is too long the beginning is shown, or else the
/// part around the match.
pub(super) fn excerpt(line: &[u8], place: Range<usize>) -> (String, bool) {
    // Four bytes are the most that a character takes.
    let shown = |start: usize| {
        let text = String::from_utf8_lossy(&line[start..line.len().min(start + LIMIT * 4)]);
        match text.char_indices().nth(LIMIT) {
            Some((end, _)) => (text[..end].to_owned(), true),
            None => (text.into_owned(), start + LIMIT * 4 < line.len()),
        }
    };
    let (beginning, cut) = shown(0);
    if !cut {
        return (beginning, false);
    }
    if place.end <= beginning.len() {
        return (beginning + GAP, true);
    }
    let start = place.start.saturating_sub(BEFORE);
    // Not in the middle of a character.
    let inside = line[start..].iter().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count();
    let (part, more) = shown(start + inside);
    (format!("{GAP}{part}{}", if more { GAP } else { "" }), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_match_is_in_what_is_shown_of_a_long_line() {
        assert_eq!(excerpt(b"a needle", 2..8), ("a needle".to_owned(), false));
        for before in [0, 1_990, 5_000, 100_000] {
            for filler in ["x", "é", "\u{20ac}"] {
                let line = format!("{}needle{}", filler.repeat(before), filler.repeat(5_000));
                let start = before * filler.len();
                let (shown, cut) = excerpt(line.as_bytes(), start..start + 6);
                assert!(shown.contains("needle") && cut, "{before} {filler}");
                assert!(shown.chars().count() <= LIMIT + 2, "{}", shown.chars().count());
                assert!(!shown.contains('\u{fffd}'), "{before} {filler}");
            }
        }
        let line = format!("{}needle", "x".repeat(5_000));
        assert!(excerpt(line.as_bytes(), 5_000..5_006).0.ends_with("needle"));
    }
}
