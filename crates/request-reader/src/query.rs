//! The reader of query strings.

use std::{borrow::Cow, num::IntErrorKind};

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, IntoDeserializer, Visitor,
        value::{CowStrDeserializer, MapDeserializer},
    },
    forward_to_deserialize_any,
};

use crate::misfit::{FieldMisfit, Misfit};

/// The text of one parameter. A number and a word look alike there, so the type that is read decides.
struct Text<'a>(Cow<'a, str>);

/// Reads the text behind the `?` of an address.
///
/// # Errors
/// [`FieldMisfit`] with the first parameter that does not fit.
pub fn query<T: DeserializeOwned>(text: &str) -> Result<T, FieldMisfit> {
    let parameters = form_urlencoded::parse(text.as_bytes()).map(|(name, value)| (name, Text(value)));
    serde_path_to_error::deserialize(MapDeserializer::new(parameters)).map_err(FieldMisfit::new)
}

// === impl Text ===

impl<'de> IntoDeserializer<'de, Misfit> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! deserialize_whole_numbers {
    ($($deserialize:ident $visit:ident $type:ty)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            visitor.$visit(self.0.parse::<$type>().map_err(|error| not_whole(error.kind()))?)
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let text: CowStrDeserializer<'_, Misfit> = self.0.into_deserializer();
        text.deserialize_any(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let is_true = self.0.parse().map_err(|_| Misfit::Refused("it takes true or false".to_owned()))?;
        visitor.visit_bool(is_true)
    }

    deserialize_whole_numbers! {
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_f64(self.0.parse().map_err(|_| Misfit::Refused("it takes a number".to_owned()))?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let word: CowStrDeserializer<'_, Misfit> = self.0.into_deserializer();
        visitor.visit_enum(word)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

fn not_whole(kind: &IntErrorKind) -> Misfit {
    let reason = match kind {
        IntErrorKind::Empty => "it is empty, and takes a whole number from 0",
        IntErrorKind::PosOverflow => "the number is too large",
        IntErrorKind::NegOverflow => "the number is too small",
        _ => "it takes a whole number from 0",
    };
    Misfit::Refused(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Query {
        limit: Option<u32>,
        name: Option<String>,
        order: Option<Order>,
        #[serde(default)]
        all: bool,
        share: Option<f64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Order {
        Newest,
        Oldest,
    }

    #[test]
    fn parameters_are_read_as_their_types() {
        let read = query::<Query>("limit=5&name=a%20b+1&order=oldest&all=true&share=0.5").unwrap();
        let name = Some("a b 1".to_owned());
        assert_eq!(read, Query { limit: Some(5), name, order: Some(Order::Oldest), all: true, share: Some(0.5) });
        let nothing = Query { limit: None, name: None, order: None, all: false, share: None };
        assert_eq!(query::<Query>(""), Ok(nothing));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (text, expected, is_of_form) in [
            ("limit=many", "limit: it takes a whole number from 0", false),
            ("limit=-1", "limit: it takes a whole number from 0", false),
            ("limit=", "limit: it is empty, and takes a whole number from 0", false),
            ("limit=4294967296", "limit: the number is too large", false),
            ("all=maybe", "all: it takes true or false", false),
            ("share=half", "share: it takes a number", false),
            ("order=random", "order: unknown variant `random`, expected `newest` or `oldest`", true),
            ("limit=1&limit=2", "limit: duplicate field `limit`", true),
            (
                "colour=red",
                "colour: unknown field `colour`, expected one of `limit`, `name`, `order`, `all`, `share`",
                true,
            ),
        ] {
            let fault = query::<Query>(text).unwrap_err();
            assert_eq!((fault.to_string().as_str(), fault.misfit.is_of_form()), (expected, is_of_form), "{text}");
        }
    }
}
