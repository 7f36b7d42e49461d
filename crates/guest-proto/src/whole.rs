//! Whole numbers as clients write them: `5000.0` is 5000, for clients that have only one kind of number.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{Error, Unexpected, Visitor},
};

/// The largest number up to which every whole number has a floating-point number of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

struct Whole<T>(PhantomData<T>);

struct Optional<T>(PhantomData<T>);

/// Reads a whole number from 0, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// The format's error, for a value that is no whole number or is too large for `T`.
pub fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    // Not `deserialize_u64`: within an enum that is told by a tag, serde gives a float to whoever takes any number
    // alone.
    deserializer.deserialize_any(Whole(PhantomData))
}

/// Reads a whole number from 0, or null, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// The format's error, for a value that is neither or is too large for `T`.
pub fn option<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_option(Optional(PhantomData))
}

impl<T: TryFrom<u64>> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &"a smaller number"))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        if number.fract() != 0.0 || !(0.0..=EXACT).contains(&number) {
            return Err(E::invalid_value(Unexpected::Float(number), &self));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
        self.visit_u64(number as u64)
    }
}

impl<'de, T: TryFrom<u64>> Visitor<'de> for Optional<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0, or null")
    }

    fn visit_none<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        number(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "number")]
        small: u8,
        #[serde(default, deserialize_with = "option")]
        large: Option<u64>,
    }

    fn read(text: &str) -> Result<Numbers, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_without_a_fraction_is_whole() {
        for text in
            [r#"{"small": 5, "large": 5000}"#, r#"{"small": 5.0, "large": 5000.0}"#, r#"{"small": 5e0, "large": 5e3}"#]
        {
            assert_eq!(read(text), Ok(Numbers { small: 5, large: Some(5000) }), "{text}");
        }
        assert_eq!(read(r#"{"small": 0, "large": null}"#), Ok(Numbers { small: 0, large: None }));
        assert_eq!(read(r#"{"small": 0}"#), Ok(Numbers { small: 0, large: None }));
    }

    #[test]
    fn anything_else_is_refused() {
        for value in ["5.5", "-1", "-1.0", "\"5\"", "true", "1e300", "256", "256.0", "null"] {
            assert!(read(&format!(r#"{{"small": {value}}}"#)).is_err(), "{value}");
        }
        for value in ["0.5", "-1", "-1.0", "\"5\"", "1e300"] {
            let error = read(&format!(r#"{{"small": 1, "large": {value}}}"#)).unwrap_err();
            assert!(error.contains("a whole number from 0"), "{value}: {error}");
        }
    }
}
