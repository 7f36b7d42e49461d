//! Schemas of the OpenAPI document, for people.

use maud::{Markup, html};
use serde_json::Value;

use super::{text, words};

/// Renders one named schema with its fields.
pub(super) fn render(name: &str, schema: &Value) -> Markup {
    html! {
        details id={ "schema-" (name) } {
            summary { code { (name) } }
            p { (words(text(&schema["description"]))) }
            (fields(schema))
        }
    }
}

/// Renders the fields of an object, the variants of a union, or the words of an enumeration.
fn fields(schema: &Value) -> Markup {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let parts = ["oneOf", "allOf", "anyOf"].iter().find_map(|key| Some((*key, schema[*key].as_array()?)));
    html! {
        @if let Some((key, parts)) = parts {
            p.soft { @if key == "allOf" { "All of:" } @else { "One of:" } }
            @for part in parts {
                @if part["properties"].is_object() {
                    p { (words(text(&part["description"]))) }
                    (fields(part))
                } @else {
                    div { (kind(part)) " " (words(text(&part["description"]))) }
                }
            }
        } @else if let Some(properties) = schema["properties"].as_object() {
            table {
                @for (name, property) in properties {
                    tr {
                        td { code { (name) } @if required.contains(&name.as_str()) { span.soft { " required" } } }
                        td { (kind(property)) }
                        td { (words(text(&property["description"]))) (limits(property)) }
                    }
                }
            }
        } @else {
            div { (kind(schema)) }
        }
    }
}

/// Describes the type of a value in a few words, with a link to a named schema.
pub(super) fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return html! { a href={ "#schema-" (name) } { (name) } };
    }
    if let Some(words) = schema["enum"].as_array() {
        return html! { @for word in words { code { (word.as_str().map_or_else(|| word.to_string(), str::to_owned)) } " " } };
    }
    if let Some(parts) = schema["oneOf"].as_array() {
        return html! { @for (index, part) in parts.iter().enumerate() { @if index > 0 { " or " } (kind(part)) } };
    }
    let types: Vec<_> = match &schema["type"] {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    html! {
        @if types.contains(&"array") { "list of " (kind(&schema["items"])) }
        @else if types.is_empty() { "anything" }
        @else { (types.join(" or ")) }
    }
}

fn limits(schema: &Value) -> Markup {
    let bounds =
        [("minimum", "at least"), ("maximum", "at most"), ("maxLength", "characters at most"), ("pattern", "matches")];
    let stated = bounds.iter().filter(|(key, _)| !schema[*key].is_null());
    html! {
        @for (key, label) in stated {
            span.soft { " " (label) " " code { (schema[*key].as_str().map_or_else(|| schema[*key].to_string(), str::to_owned)) } }
        }
    }
}
