//! Amounts of bytes as people write them: `512M`, `4G`, or a plain number.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Type,
        schema::{ObjectBuilder, OneOfBuilder, Schema},
    },
};

/// An amount of bytes. Reads a number, or a number with one of the suffixes K, M, G and T, which are powers of 1,024
/// (also `Ki`, `KiB`, `KB` and so on); writes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A text that is no amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of bytes; write a number of bytes, or one with a suffix, such as 512M or 4G")]
pub struct InvalidSize(String);

impl std::str::FromStr for ByteSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let invalid = || InvalidSize(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, suffix) = trimmed.split_at(digits);
        let suffix = suffix.trim().to_ascii_lowercase();
        let unit = suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix(['b', 'i'])).unwrap_or(&suffix);
        let shift = match unit {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(invalid()),
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, suffix) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            let unit = 1_u64 << shift;
            if self.0 >= unit {
                let tenths = u128::from(self.0) * 10 / u128::from(unit);
                return match (tenths / 10, tenths % 10) {
                    (whole, 0) => write!(f, "{whole}{suffix}"),
                    (whole, tenth) => write!(f, "{whole}.{tenth}{suffix}"),
                };
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a text such as \"4G\"")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
                u64::try_from(number).map(ByteSize).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<ByteSize, E> {
                let whole = de::IntoDeserializer::<E>::into_deserializer(number);
                emergent_guest_proto::whole::number(whole).map(ByteSize)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl PartialSchema for ByteSize {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0.0_f64));
        let text =
            ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]{1,12}([KMGT]i?B?)?$")).examples(["4G"]);
        let description = "An amount of bytes: a number, or a text with a suffix K, M, G or T (powers of 1,024). \
                           Answers have a number.";
        OneOfBuilder::new().item(number).item(text).description(Some(description)).into()
    }
}

impl ToSchema for ByteSize {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("4G", 4 << 30), ("512M", 512 << 20), ("1.", 0), ("10 GiB", 10 << 30), ("7kb", 7 << 10)]
        {
            let read = text.parse::<ByteSize>();
            if text == "1." {
                assert!(read.is_err());
            } else {
                assert_eq!(read, Ok(ByteSize(bytes)), "{text}");
            }
        }
        for text in ["", "G", "-1", "4X", "99999999999999999999", "17000000T", "1e3"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_the_largest_suffix_that_fits() {
        for (bytes, text) in [(0, "0"), (1023, "1023"), (4 << 30, "4G"), (1536 << 20, "1.5G"), (512 << 20, "512M")] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
