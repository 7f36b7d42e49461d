//! Paths inside a workspace, which are bytes, as JSON strings, which are not.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt as _, path::Path};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A path inside a workspace: any bytes but NUL.
///
/// In JSON and in query strings a path that is UTF-8 stands as it is. Any other path is written as bash and git write
/// it, `$'caf\xe9'`, so that an agent can paste it into a shell; and so is a path that begins with `$'` itself, which
/// makes the notation reversible.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestPath(Vec<u8>);

/// The reason why a string is not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// The path is empty.
    #[error("the path is empty; name a file or directory")]
    Empty,
    /// The path is longer than the kernel's limit of 4,096 bytes.
    #[error("the path is longer than 4096 bytes")]
    TooLong,
    /// The path contains a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
    /// The path begins with `$'` and is not a well-formed quotation.
    #[error("the path begins with $' but is not a complete $'…' quotation of bytes (\\xNN, \\\\ and \\')")]
    BadQuotation,
}

impl GuestPath {
    /// Returns the path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path as the operating system takes it.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Reads the notation that [`GuestPath`] describes.
    ///
    /// # Errors
    /// [`InvalidPath`] names the fault of the text.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        let bytes = match text.strip_prefix("$'") {
            Some(quoted) => unquote(quoted)?,
            None => text.as_bytes().to_vec(),
        };
        match () {
            () if bytes.is_empty() => Err(InvalidPath::Empty),
            () if bytes.len() > 4096 => Err(InvalidPath::TooLong),
            () if bytes.contains(&0) => Err(InvalidPath::Nul),
            () => Ok(Self(bytes)),
        }
    }
}

fn unquote(quoted: &str) -> Result<Vec<u8>, InvalidPath> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted.as_bytes().iter().copied();
    loop {
        match rest.next() {
            None => return Err(InvalidPath::BadQuotation),
            Some(b'\'') => return if rest.next().is_none() { Ok(bytes) } else { Err(InvalidPath::BadQuotation) },
            Some(b'\\') => match rest.next() {
                Some(plain @ (b'\\' | b'\'')) => bytes.push(plain),
                Some(b'x') => {
                    let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(hex_value));
                    let [Some(high), Some(low)] = digits else { return Err(InvalidPath::BadQuotation) };
                    bytes.push(high << 4 | low);
                }
                _ => return Err(InvalidPath::BadQuotation),
            },
            Some(byte) => bytes.push(byte),
        }
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

// === impl GuestPath ===

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with("$'") => return f.write_str(text),
            _ => f.write_str("$'")?,
        }
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    '\'' => f.write_str("\\'")?,
                    other => write!(f, "{other}")?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str("'")
    }
}

impl fmt::Debug for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

impl From<&Path> for GuestPath {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl std::str::FromStr for GuestPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        Self::parse(text)
    }
}

impl Serialize for GuestPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_path_survives_its_notation(bytes in prop::collection::vec(1_u8..=255, 1..64)) {
            let path = GuestPath(bytes);
            prop_assert_eq!(GuestPath::parse(&path.to_string()), Ok(path));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            drop(GuestPath::parse(&text));
        }
    }

    #[test]
    fn a_path_that_is_not_utf8_can_be_pasted_into_a_shell() {
        assert_eq!(GuestPath(b"caf\xe9's".to_vec()).to_string(), r"$'caf\xe9\'s'");
    }

    #[test]
    fn an_incomplete_quotation_is_refused() {
        for text in ["$'", "$'a", "$'a'b", r"$'\x4'", r"$'\q'"] {
            assert_eq!(GuestPath::parse(text), Err(InvalidPath::BadQuotation), "{text}");
        }
    }
}
