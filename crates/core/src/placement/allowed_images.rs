//! The images that the operator allows.

use emergent_provider::ImageRef;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The images that may be used.
pub(crate) struct AllowedImages {
    patterns: Option<GlobSet>,
}

/// A glob of the operator's that is none.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct InvalidPattern(#[from] globset::Error);

// === impl AllowedImages ===

impl AllowedImages {
    /// Reads the operator's globs; `*` and `?` do not match `/`, `**` does.
    pub(crate) fn new(globs: &[String]) -> Result<Self, InvalidPattern> {
        if globs.is_empty() {
            return Ok(Self { patterns: None });
        }
        let mut patterns = GlobSetBuilder::new();
        for glob in globs {
            patterns.add(GlobBuilder::new(glob).literal_separator(true).build()?);
        }
        Ok(Self { patterns: Some(patterns.build()?) })
    }

    /// Whether an image is among those that are allowed, or all are.
    pub(crate) fn contain(&self, image: &ImageRef) -> bool {
        self.patterns.is_none() || self.name(image)
    }

    /// Whether a glob matches an image.
    pub(crate) fn name(&self, image: &ImageRef) -> bool {
        self.patterns.as_ref().is_some_and(|patterns| patterns.is_match(image.as_str()))
    }
}
