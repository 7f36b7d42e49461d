//! Environments at rest: AES-256-GCM, bound to the server that they belong to.

use std::{collections::BTreeMap, fmt};

use emergent_store::McpServerId;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom as _, SystemRandom},
};

/// The version of the sealed form, its first byte.
const VERSION: u8 = 1;

/// The key that environments are encrypted with. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SecretKey(LessSafeKey);

/// A text that is no key. Does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits, which are 32 bytes")]
pub struct UnusableKey;

/// Why an environment could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    #[error("the environment could not be encrypted")]
    Seal,
    #[error(
        "the environment could not be decrypted: EMERGENT_SECRET_KEY is not the key that it was encrypted with; put that \
         key back, or give the server its environment again"
    )]
    Open,
}

// === impl SecretKey ===

impl SecretKey {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`UnusableKey`].
    pub fn from_hex(text: &str) -> Result<Self, UnusableKey> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(UnusableKey);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair =
                std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(UnusableKey)?;
        }
        UnboundKey::new(&AES_256_GCM, &bytes).map(|key| Self(LessSafeKey::new(key))).map_err(|_| UnusableKey)
    }

    /// A new key, as text.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate_hex() -> Result<String, UnusableKey> {
        let mut bytes = [0_u8; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| UnusableKey)?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Encrypts an environment for one server.
    pub(crate) fn seal(&self, of: McpServerId, environment: &BTreeMap<String, String>) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Seal)?;
        let mut text = serde_json::to_vec(environment).map_err(|_| SealError::Seal)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_append_tag(unique, Aad::from(of.as_uuid().into_bytes()), &mut text);
        sealed.map_err(|_| SealError::Seal)?;
        Ok([&[VERSION][..], &nonce, &text].concat())
    }

    /// Decrypts the output of [`seal`](Self::seal) for the same server.
    pub(crate) fn open(&self, of: McpServerId, sealed: &[u8]) -> Result<BTreeMap<String, String>, SealError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(SealError::Open)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Open)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Open)?;
        let mut text = text.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(of.as_uuid().into_bytes()), &mut text);
        serde_json::from_slice(opened.map_err(|_| SealError::Open)?).map_err(|_| SealError::Open)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> BTreeMap<String, String> {
        [("TOKEN".to_owned(), "hidden".to_owned())].into()
    }

    #[test]
    fn what_is_sealed_for_one_server_opens_for_no_other_and_with_no_other_key() {
        let key = SecretKey::from_hex(&SecretKey::generate_hex().unwrap()).unwrap();
        let (one, other) = (McpServerId::generate(), McpServerId::generate());
        let sealed = key.seal(one, &environment()).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"hidden"));
        assert_eq!(key.open(one, &sealed), Ok(environment()));
        assert_eq!(key.open(other, &sealed), Err(SealError::Open));
        let another = SecretKey::from_hex(&"0f".repeat(32)).unwrap();
        assert_eq!(another.open(one, &sealed), Err(SealError::Open));
        for changed in 0..sealed.len() {
            let mut sealed = sealed.clone();
            sealed[changed] ^= 1;
            assert_eq!(key.open(one, &sealed), Err(SealError::Open));
        }
    }

    #[test]
    fn only_64_hexadecimal_digits_are_a_key() {
        for bad in ["", "00", &"g0".repeat(32), &"é".repeat(32), &"+1".repeat(32)] {
            assert_eq!(SecretKey::from_hex(bad).err(), Some(UnusableKey));
        }
        assert_eq!(format!("{:?}", SecretKey::from_hex(&"00".repeat(32)).unwrap()), "SecretKey");
    }
}
