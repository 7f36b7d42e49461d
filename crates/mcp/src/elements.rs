//! The parts of long JSON, one after the other: a list of all of them would take many times the memory of the text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The elements of a JSON array, in order.
pub(crate) struct Elements<'a> {
    rest: &'a str,
}

/// The search for the member of this name.
struct Named<'n>(&'n str);

// === impl Elements ===

impl<'a> Elements<'a> {
    /// The elements of a value; `None` if it is no array.
    pub(crate) fn of(value: &'a RawValue) -> Option<Self> {
        value.get().strip_prefix('[').map(|rest| Self { rest })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a RawValue;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_ascii_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest);
        let mut values = serde_json::Deserializer::from_str(rest).into_iter();
        // The bracket at the end is no value.
        let element = values.next()?.ok()?;
        self.rest = rest.get(values.byte_offset()..)?;
        Some(element)
    }
}

/// The member of this name in a JSON object, the last one where there are several.
pub(crate) fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let mut reader = serde_json::Deserializer::from_str(object.get());
    Named(name).deserialize(&mut reader).ok().flatten()
}

// === impl Named ===

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Named<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn elements_come_as_they_were_written() {
        let elements = |text| Some(Elements::of(raw(text))?.map(RawValue::get).collect::<Vec<_>>());
        let many = r#" [1, "a,]" ,[2,3],{"b":[4] },null,-1.5e3 ] "#;
        assert_eq!(elements(many), Some(vec!["1", r#""a,]""#, "[2,3]", r#"{"b":[4] }"#, "null", "-1.5e3"]));
        assert_eq!(elements("[]"), Some(vec![]));
        assert_eq!(elements("[ [] ]"), Some(vec!["[]"]));
        assert_eq!(elements("{}"), None);
    }

    #[test]
    fn a_member_is_found_by_its_name() {
        let object = r#"{"a":1,"b":{"c":2},"\u0063":[3],"a":4}"#;
        let found = |name| member(raw(object), name).map(RawValue::get);
        assert_eq!((found("a"), found("c"), found("d")), (Some("4"), Some("[3]"), None));
        assert!(member(raw("[1]"), "a").is_none());
    }
}
