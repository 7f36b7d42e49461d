//! The secret of a token: `emt_` and 43 characters that stand for 256 random bits.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "emt_";
const CHARACTERS: usize = 43;

/// A token's secret. Shown once, when it is made; never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(String);

/// A text that cannot be a token of this server. Does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is emt_ and 43 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidSecret;

impl TokenSecret {
    /// Makes a new secret, from the operating system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        Self(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())))
    }

    /// Checks the form of a text.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let body = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        let well_formed = body.len() == CHARACTERS && body.bytes().all(allowed);
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidSecret) }
    }

    /// Returns the hash that the store keeps.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Returns the secret itself, to show it once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("emt_…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_secret_has_the_form_that_is_taken() {
        let secret = TokenSecret::generate();
        assert_eq!(TokenSecret::parse(secret.expose()), Ok(secret));
    }

    #[test]
    fn other_forms_are_refused_and_not_repeated() {
        for text in ["", "emt_", "emt_short", &format!("emt_{}", "é".repeat(22)), &format!("xyz_{}", "a".repeat(43))] {
            assert_eq!(TokenSecret::parse(text), Err(InvalidSecret), "{text}");
        }
        assert!(!format!("{:?}", TokenSecret::generate()).contains(|c: char| c.is_ascii_digit()));
    }
}
