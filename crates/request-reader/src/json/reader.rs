//! A reader that stands between serde_json and the types that are read, so that the types' errors are [`Misfit`]s.
//!
//! Every value is read as the kind of value that it is. A type that expects another kind then refuses the value itself,
//! with the error type of this reader. serde_json can carry no foreign error, so a misfit on its way out waits in a cell
//! for the next layer of this reader.

use std::{
    cell::Cell,
    fmt::{self, Display},
};

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, Error, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use crate::misfit::Misfit;

/// A layer around a part of serde_json, or around the part of a type that serde_json calls.
pub(super) struct Reader<'r, P> {
    part: P,
    raised: &'r Raised,
}

/// The misfit that is on its way out.
#[derive(Default)]
pub(super) struct Raised(Cell<Option<Misfit>>);

/// Reads an enum from a word, or from an object of a word and its content.
struct Variant<V>(V);

// === impl Raised ===

impl Raised {
    /// Lets a misfit pass through serde_json.
    fn raise<E: Error>(&self, misfit: Misfit) -> E {
        self.0.set(Some(misfit));
        E::custom("a value does not fit its type")
    }

    /// Returns the misfit that comes out of serde_json with an error. An error of serde_json's own is about the text.
    fn lower(&self, error: &impl Display) -> Misfit {
        self.0.take().unwrap_or_else(|| Misfit::Malformed(error.to_string()))
    }
}

// === impl Reader ===

impl<'r, P> Reader<'r, P> {
    pub(super) fn new(part: P, raised: &'r Raised) -> Self {
        Self { part, raised }
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Reader<'_, D> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let visitor = Reader::new(visitor, self.raised);
        self.part.deserialize_any(visitor).map_err(|error| self.raised.lower(&error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let visitor = Reader::new(visitor, self.raised);
        self.part.deserialize_option(visitor).map_err(|error| self.raised.lower(&error))
    }

    /// serde_json gives the bare text of a value to a newtype that it knows by its name.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        let visitor = Reader::new(visitor, self.raised);
        self.part.deserialize_newtype_struct(name, visitor).map_err(|error| self.raised.lower(&error))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let visitor = Reader::new(visitor, self.raised);
        self.part.deserialize_ignored_any(visitor).map_err(|error| self.raised.lower(&error))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_any(Variant(visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

macro_rules! visit_plain {
    ($($visit:ident($($value:ident: $type:ty)?))*) => {
        $(fn $visit<E: Error>(self $(, $value: $type)?) -> Result<V::Value, E> {
            self.part.$visit::<Misfit>($($value)?).map_err(|misfit| self.raised.raise(misfit))
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Reader<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part.expecting(f)
    }

    visit_plain! {
        visit_bool(value: bool) visit_i64(value: i64) visit_u64(value: u64) visit_f64(value: f64) visit_str(value: &str)
        visit_borrowed_str(value: &'de str) visit_string(value: String) visit_unit() visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        let value = Reader::new(value, self.raised);
        self.part.visit_some(value).map_err(|misfit| self.raised.raise(misfit))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        let value = Reader::new(value, self.raised);
        self.part.visit_newtype_struct(value).map_err(|misfit| self.raised.raise(misfit))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        let items = Reader::new(items, self.raised);
        self.part.visit_seq(items).map_err(|misfit| self.raised.raise(misfit))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        let fields = Reader::new(fields, self.raised);
        self.part.visit_map(fields).map_err(|misfit| self.raised.raise(misfit))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Reader<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<S::Value, D::Error> {
        let value = Reader::new(value, self.raised);
        self.part.deserialize(value).map_err(|misfit| self.raised.raise(misfit))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Reader<'_, A> {
    type Error = Misfit;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        let seed = Reader::new(seed, self.raised);
        self.part.next_element_seed(seed).map_err(|error| self.raised.lower(&error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.part.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Reader<'_, A> {
    type Error = Misfit;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        let seed = Reader::new(seed, self.raised);
        self.part.next_key_seed(seed).map_err(|error| self.raised.lower(&error))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Misfit> {
        let seed = Reader::new(seed, self.raised);
        self.part.next_value_seed(seed).map_err(|error| self.raised.lower(&error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.part.size_hint()
    }
}

// === impl Variant ===

impl<'de, V: Visitor<'de>> Visitor<'de> for Variant<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<V::Value, E> {
        let word: StrDeserializer<'_, E> = word.into_deserializer();
        self.0.visit_enum(word)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(MapAccessDeserializer::new(fields))
    }
}
