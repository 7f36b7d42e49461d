//! The messages that clients get about bodies that do not fit.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    name: Option<String>,
    limits: Option<Limits>,
    action: Option<Action>,
    params: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read")]
struct Limits {
    cpu: f64,
    pids: Option<u32>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Start,
    Stop,
    After(u64),
}

fn said<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
    let JsonError::Field(fault) = value::<T>(text.as_bytes()).unwrap_err() else { panic!("{text} is no JSON") };
    fault.misfit.to_string()
}

fn fault(text: &str) -> FieldMisfit {
    let JsonError::Field(fault) = json::<Request>(text.as_bytes()).unwrap_err() else { panic!("{text} is no JSON") };
    fault
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
    assert_eq!(said::<Limits>("\"a, expected b\""), "it takes an object, not the string \"a, expected b\"");
    assert_eq!(said::<Action>("5"), "it takes one of its words, not the number 5");
}

#[test]
fn the_blamed_field_is_the_whole_path() {
    for (text, field) in [
        (r#"{"colour": "red"}"#, "colour"),
        (r#"{"limits": {"cpu": 1, "x": 2}}"#, "limits.x"),
        (r#"{"limits": {}}"#, "limits.cpu"),
        (r#"{"limits": {"cpu": "two"}}"#, "limits.cpu"),
        (r#"{"name": "a", "name": "b"}"#, "name"),
        (r#"{"action": "dance"}"#, "action"),
    ] {
        assert_eq!(fault(text).field, field, "{text}");
    }
}

#[test]
fn kinds_of_faults_are_told_apart_whatever_the_values_say() {
    let field = |name: &str, known| Misfit::UnknownField { field: name.to_owned(), known };
    assert_eq!(
        fault(r#"{"limits": {"cpu": 1, "invalid type": 2}}"#).misfit,
        field("invalid type", vec!["cpu", "pids"])
    );
    assert_eq!(fault(r#"{"limits": {"pids": 5}}"#).misfit, Misfit::MissingField("cpu"));
    let known: &[&str] = &["start", "stop", "after"];
    assert_eq!(
        fault(r#"{"action": "missing field"}"#).misfit,
        Misfit::UnknownWord { word: "missing field".to_owned(), known }
    );
    assert!(fault(r#"{"limits": {"cpu": "unknown field `a`"}}"#).misfit.is_of_form());
    assert!(!fault(r#"{"limits": {"cpu": 1, "pids": -1}}"#).misfit.is_of_form());
}

#[test]
fn a_text_that_is_no_json_is_not_taken_for_a_field_that_does_not_fit() {
    for text in [r#"{"name": "#, r#"{"name": "a" "#, r#"{"limits": {"cpu": 1e999}}"#, r#"{"name": "\ud800"}"#, "{,}"] {
        let error = json::<Request>(text.as_bytes()).unwrap_err();
        assert!(matches!(error, JsonError::Malformed(_)), "{text}: {error}");
    }
    assert!(matches!(json::<Request>(b"{} {}"), Err(JsonError::Trailing(_))));
    assert!(matches!(json::<Request>(b"[]"), Err(JsonError::NotAnObject)));
}

#[test]
fn bare_text_words_with_content_and_missing_values_are_read() {
    let request = json::<Request>(br#"{"params": {"a": [1, 2.50]}, "action": {"after": 5}, "limits": null}"#).unwrap();
    assert_eq!(request.params.unwrap().get(), r#"{"a": [1, 2.50]}"#);
    assert_eq!(request.action, Some(Action::After(5)));
    assert!(request.limits.is_none() && request.name.is_none());
}
