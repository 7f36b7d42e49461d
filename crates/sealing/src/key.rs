//! The key, and what it does.

use std::fmt;

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// The version of the sealed form, its first byte.
const VERSION: u8 = 1;

/// The key that secrets are encrypted with. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SecretKey(LessSafeKey);

/// A text that is no key. Does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits, which are 32 bytes")]
pub struct UnusableKey;

/// A value that could not be encrypted: the system has no random numbers, or the value is none of JSON's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret could not be encrypted; see that the system has random numbers, and try again")]
pub struct SealError;

/// Bytes that could not be decrypted: they were sealed with another key or for another owner, or were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret could not be decrypted; put the key back that it was encrypted with, or give the secret again")]
pub struct OpenError;

// === impl SecretKey ===

impl SecretKey {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`UnusableKey`].
    pub fn from_hex(text: &str) -> Result<Self, UnusableKey> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| UnusableKey)?;
        UnboundKey::new(&AES_256_GCM, &bytes).map(|key| Self(LessSafeKey::new(key))).map_err(|_| UnusableKey)
    }

    /// Makes a new key, as text.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate_hex() -> Result<String, UnusableKey> {
        let mut bytes = [0_u8; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| UnusableKey)?;
        Ok(hex::encode(bytes))
    }

    /// Encrypts a value for one owner.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, owner: Uuid, value: &impl Serialize) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError)?;
        let mut text = serde_json::to_vec(value).map_err(|_| SealError)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        let sealed = self.0.seal_in_place_append_tag(unique, Aad::from(owner.into_bytes()), &mut text);
        sealed.map_err(|_| SealError)?;
        Ok([&[VERSION][..], &nonce, &text].concat())
    }

    /// Decrypts the output of [`seal`](Self::seal) for the same owner.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open<T: DeserializeOwned>(&self, owner: Uuid, sealed: &[u8]) -> Result<T, OpenError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(OpenError)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError)?;
        let mut text = text.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(owner.into_bytes()), &mut text);
        serde_json::from_slice(opened.map_err(|_| OpenError)?).map_err(|_| OpenError)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Environment = BTreeMap<String, String>;

    /// The environment sealed for the owner 1 with a key of zeros, by another implementation of AES-256-GCM.
    const SEALED_ELSEWHERE: &str =
        "01000102030405060708090a0bf3e9671d4bb8c1dbf85a3a8c9967bb62761160901daf7f6d6e3b96ca40e46f3cf43a";

    fn environment() -> Environment {
        [("TOKEN".to_owned(), "hidden".to_owned())].into()
    }

    #[test]
    fn what_is_sealed_for_one_owner_opens_for_no_other_and_with_no_other_key() {
        let key = SecretKey::from_hex(&SecretKey::generate_hex().unwrap()).unwrap();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let open = |key: &SecretKey, owner, sealed: &[u8]| key.open::<Environment>(owner, sealed);
        let sealed = key.seal(one, &environment()).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"hidden"));
        assert_eq!(open(&key, one, &sealed), Ok(environment()));
        assert_eq!(open(&key, other, &sealed), Err(OpenError));
        let another = SecretKey::from_hex(&"0f".repeat(32)).unwrap();
        assert_eq!(open(&another, one, &sealed), Err(OpenError));
        for changed in 0..sealed.len() {
            let mut sealed = sealed.clone();
            sealed[changed] ^= 1;
            assert_eq!(open(&key, one, &sealed), Err(OpenError));
        }
    }

    #[test]
    fn a_secret_in_the_documented_form_opens() {
        let key = SecretKey::from_hex(&"00".repeat(32)).unwrap();
        let sealed = hex::decode(SEALED_ELSEWHERE).unwrap();
        assert_eq!(key.open(Uuid::from_u128(1), &sealed), Ok(environment()));
    }

    #[test]
    fn only_64_hexadecimal_digits_are_a_key() {
        for bad in ["", "00", &"g0".repeat(32), &"é".repeat(32), &"+1".repeat(32)] {
            assert_eq!(SecretKey::from_hex(bad).err(), Some(UnusableKey));
        }
        assert_eq!(format!("{:?}", SecretKey::from_hex(&"00".repeat(32)).unwrap()), "SecretKey");
    }
}
