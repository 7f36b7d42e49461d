//! Messages about request data that does not fit, in the words of the client that wrote the request: a client knows
//! whole numbers and objects, not `u64` and `struct`.

/// The names that the readers of JSON and of queries give to types, and the clients' names for these.
const EXPECTED: [(&str, &str); 17] = [
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0"),
    ("u64", "a whole number from 0"),
    ("usize", "a whole number from 0"),
    ("i8", "a whole number"),
    ("i16", "a whole number"),
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("f32", "a number"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a map", "an object"),
    ("a sequence", "a list"),
    ("a borrowed string", "a string"),
    ("unit", "null"),
    ("string or map", "a word or an object"),
];

/// The complete messages of a query's reader, and their meaning.
const WHOLE: [(&str, &str); 6] = [
    ("invalid digit found in string", "it takes a whole number from 0"),
    ("cannot parse integer from empty string", "it is empty, and takes a whole number from 0"),
    ("number too large to fit in target type", "the number is too large"),
    ("number too small to fit in target type", "the number is too small"),
    ("invalid float literal", "it takes a number"),
    ("provided string was not `true` or `false`", "it takes true or false"),
];

/// Puts a reader's message into a client's words. A message that is plain already stays as it is.
#[must_use]
pub fn explain(message: &str) -> String {
    if let Some((_, plain)) = WHOLE.iter().find(|(text, _)| *text == message) {
        return (*plain).to_owned();
    }
    let rest = ["invalid type: ", "invalid value: "].iter().find_map(|beginning| message.strip_prefix(beginning));
    let Some((given, expected)) = rest.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    format!("it takes {}, not {}", taken(expected), given_as(given))
}

fn taken(expected: &str) -> &str {
    let known = EXPECTED.iter().find(|(word, _)| *word == expected).map(|(_, plain)| *plain);
    let is_of_ours = |beginning: &str| expected.starts_with(beginning);
    known.unwrap_or(match expected {
        _ if ["struct ", "internally tagged enum ", "map with "].into_iter().any(is_of_ours) => "an object",
        _ if ["tuple struct ", "a tuple of size "].into_iter().any(is_of_ours) => "a list",
        _ if ["enum ", "unit variant ", "variant identifier"].into_iter().any(is_of_ours) => "one of its words",
        other => other,
    })
}

fn given_as(given: &str) -> String {
    let value = || given.split_once('`').map(|(_, rest)| rest.trim_end_matches('`'));
    match given {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit value" => "null".to_owned(),
        _ if given.starts_with("integer `") || given.starts_with("floating point `") => {
            format!("the number {}", value().unwrap_or_default())
        }
        _ if given.starts_with("boolean `") => value().unwrap_or_default().to_owned(),
        _ if given.starts_with("string ") => format!("the {given}"),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, de::DeserializeOwned};

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "only read")]
        field: u64,
    }

    fn said<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        let error = serde_json::from_str::<T>(text).unwrap_err().to_string();
        explain(error.split(" at line ").next().unwrap())
    }

    #[test]
    fn types_are_named_as_clients_know_them() {
        assert_eq!(said::<u64>("\"five\""), "it takes a whole number from 0, not the string \"five\"");
        assert_eq!(said::<u64>("-1"), "it takes a whole number from 0, not the number -1");
        assert_eq!(said::<u32>("5.5"), "it takes a whole number from 0, not the number 5.5");
        assert_eq!(said::<f64>("true"), "it takes a number, not true");
        assert_eq!(said::<bool>("null"), "it takes true or false, not null");
        assert_eq!(said::<String>("[]"), "it takes a string, not a list");
        assert_eq!(said::<Vec<u8>>("{}"), "it takes a list, not an object");
        assert_eq!(said::<BTreeMap<String, String>>("5"), "it takes an object, not the number 5");
        assert_eq!(said::<Inner>("\"a, expected b\""), "it takes an object, not the string \"a, expected b\"");
    }

    #[test]
    fn what_is_plain_stays() {
        for message in ["unknown field `colour`, expected `name`", "missing field `command`", "it is empty"] {
            assert_eq!(explain(message), message);
        }
        assert_eq!(explain("invalid digit found in string"), "it takes a whole number from 0");
    }
}
