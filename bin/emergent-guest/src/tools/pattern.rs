//! Patterns of paths, with the same meaning in glob and in grep: one without a slash matches names at any depth, one
//! with a slash matches paths below the directory that is searched.

use std::path::{Path, PathBuf};

use emergent_guest_proto::GuestError;
use ignore::overrides::{Override, OverrideBuilder};

use crate::failure::invalid;

/// A glob over paths.
#[derive(Debug)]
pub struct Pattern {
    /// The matcher of paths relative to the directory that is searched.
    pub matcher: Override,
    /// The directory that the pattern names before its first wildcard.
    pub named: PathBuf,
}

// === impl Pattern ===

impl Pattern {
    /// Parses the pattern in the request's field `field`.
    ///
    /// # Errors
    /// `invalid_request` for a malformed pattern.
    pub fn parse(field: &str, text: &str) -> Result<Self, GuestError> {
        let text = text.trim_start_matches("./");
        let malformed = |error: ignore::Error| invalid(field, format!("the pattern is malformed: {error}"));
        let mut builder = OverrideBuilder::new("");
        builder.add(text).map_err(malformed)?;
        Ok(Self { matcher: builder.build().map_err(malformed)?, named: named(text) })
    }

    /// Returns the pattern that matches every path.
    pub fn any() -> Self {
        Self { matcher: Override::empty(), named: PathBuf::new() }
    }
}

fn named(text: &str) -> PathBuf {
    let Some((directories, _)) = text.trim_start_matches('/').rsplit_once('/') else { return PathBuf::new() };
    let plain = |part: &&str| !part.contains(['*', '?', '[', '{', '\\', '!']);
    directories.split('/').take_while(plain).map(Path::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_the_directories_before_its_first_wildcard() {
        for (text, expected) in [
            ("*.yml", ""),
            ("a/*.yml", "a"),
            (".github/workflows/*.yml", ".github/workflows"),
            ("a/b", "a"),
            ("a/*/b/c", "a"),
            ("**/a/b", ""),
            ("{a,b}/c", ""),
        ] {
            assert_eq!(named(text), Path::new(expected), "{text}");
        }
    }

    #[test]
    fn a_pattern_without_a_slash_means_names_at_any_depth() {
        let matches = |pattern: &str, path: &str| {
            Pattern::parse("pattern", pattern).unwrap().matcher.matched(path, false).is_whitelist()
        };
        for (pattern, path) in
            [("*.rs", "a/b.rs"), ("./*.rs", "b.rs"), ("a/*.rs", "a/b.rs"), ("**/*.rs", "b.rs"), ("a/**", "a/b/c")]
        {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [("a/*.rs", "x/a/b.rs"), ("a/*.rs", "a/b/c.rs"), ("*.rs", "b.rsx")] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        assert!(Pattern::parse("include", "{a").is_err());
    }
}
