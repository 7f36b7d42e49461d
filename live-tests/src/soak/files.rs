//! The files of one workspace, as their owner knows them: for each path its possible contents.
//!
//! Normally there is one possibility. A change whose answer was lost leaves two, until somebody looks.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// The content at a path: nothing, or a file of this length and sum.
pub type Content = Option<File>;

/// A file's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The text, where it was written as such.
    pub text: Option<String>,
    /// The file's length in bytes.
    pub len: usize,
    /// The file's SHA-256, in hexadecimal.
    pub sha256: String,
}

/// The possible contents of each path.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeMap<String, Vec<Content>>);

// === impl File ===

impl File {
    /// A text file.
    pub fn text(text: String) -> Self {
        Self { len: text.len(), sha256: sum(text.as_bytes()), text: Some(text) }
    }

    /// A file of any bytes.
    pub fn blob(bytes: &[u8]) -> Self {
        Self { text: None, len: bytes.len(), sha256: sum(bytes) }
    }

    fn shown(&self) -> String {
        format!("{} bytes, sha256 {}…", self.len, &self.sha256[..12])
    }
}

// === impl Files ===

impl Files {
    /// Paths at which there may be something, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Paths with a text that is certain.
    pub fn certain_texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(path, may)| match may.as_slice() {
            [Some(File { text: Some(text), .. })] => Some((path.as_str(), text.as_str())),
            _ => None,
        })
    }

    /// Paths where there is certainly a file. Other paths may have one, too.
    pub fn certain(&self) -> impl Iterator<Item = (&str, &File)> {
        self.0.iter().filter_map(|(path, may)| match may.as_slice() {
            [Some(file)] => Some((path.as_str(), file)),
            _ => None,
        })
    }

    /// Whether there may be a file at the path.
    pub fn may_be(&self, path: &str) -> bool {
        self.0.get(path).is_some_and(|may| may.iter().any(Option::is_some))
    }

    /// Takes note of a change that was acknowledged.
    pub fn changed(&mut self, path: &str, content: Content) {
        match content {
            None => drop(self.0.remove(path)),
            content => drop(self.0.insert(path.to_owned(), vec![content])),
        }
    }

    /// Takes note of a change that may or may not have happened.
    pub fn may_have_changed(&mut self, path: &str, content: Content) {
        let may = self.0.entry(path.to_owned()).or_insert_with(|| vec![None]);
        if !may.contains(&content) {
            may.push(content);
        }
    }

    /// Takes note of the content that was seen; it is certain from now on.
    ///
    /// # Errors
    /// When that content was not possible; the message names the possible ones.
    pub fn saw(&mut self, path: &str, seen: Content) -> Result<(), String> {
        let nothing = [None];
        let may = self.0.get(path).map_or(nothing.as_slice(), Vec::as_slice);
        let is_known = |known: &Content| match (known, &seen) {
            (None, None) => true,
            (Some(known), Some(seen)) => (known.len, &known.sha256) == (seen.len, &seen.sha256),
            _ => false,
        };
        let Some(known) = may.iter().find(|known| is_known(known)).cloned() else {
            let shown = |content: &Content| content.as_ref().map_or_else(|| "no file".to_owned(), File::shown);
            let expected: Vec<_> = may.iter().map(shown).collect();
            let message = format!("{path} has {}, and should have {}", shown(&seen), expected.join(" or "));
            self.changed(path, seen);
            return Err(message);
        };
        self.changed(path, known);
        Ok(())
    }
}

/// The SHA-256 of some bytes, in hexadecimal.
pub fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_write_must_be_seen() {
        let mut files = Files::default();
        files.changed("a", Some(File::text("one".to_owned())));
        assert!(files.saw("a", Some(File::blob(b"two"))).is_err());
        files.changed("a", Some(File::text("one".to_owned())));
        assert!(files.saw("a", None).is_err());
    }

    #[test]
    fn a_write_whose_answer_was_lost_may_be_seen_or_not_until_somebody_looks() {
        let mut files = Files::default();
        files.changed("a", Some(File::text("old".to_owned())));
        files.may_have_changed("a", Some(File::text("new".to_owned())));
        assert_eq!(files.clone().saw("a", Some(File::blob(b"old"))), Ok(()));
        assert_eq!(files.saw("a", Some(File::blob(b"new"))), Ok(()));
        assert!(files.saw("a", Some(File::blob(b"old"))).is_err(), "it was new already");
    }
}
