//! The OpenAPI document against the code, and against itself.

use std::{collections::HashSet, path::Path};

use serde_json::{Map, Value};

/// One operation of the document.
pub(crate) struct Operation {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// All operations of the document.
pub(crate) fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(emergent_api::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, body)| Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                body: body.clone(),
            })
        })
        .collect()
}

impl Operation {
    /// The scopes that it needs; none for a public one.
    pub(crate) fn scopes(&self) -> Vec<String> {
        let security = self.body["security"].as_array().into_iter().flatten();
        let scopes = security.filter_map(|entry| entry["token"].as_array()).flatten();
        scopes.map(|scope| scope.as_str().unwrap().to_owned()).collect()
    }

    /// Returns the operation's path with ids that name nothing.
    pub(crate) fn example_path(&self) -> String {
        self.path
            .replace("{id}", "01990000-0000-7000-8000-000000000000")
            .replace("{execution_id}", "nothing")
            .replace("{call_id}", "nothing")
    }

    /// Returns the operation's path with this id, and with every required part of the query.
    pub(crate) fn path_of(&self, id: &str) -> String {
        let path = self.path.replace("{id}", id).replace("{execution_id}", "nothing").replace("{call_id}", "nothing");
        let parameters = self.body["parameters"].as_array().into_iter().flatten();
        let needed = parameters.filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
        let query: Vec<_> = needed.map(|parameter| format!("{}=x", parameter["name"].as_str().unwrap())).collect();
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    /// The smallest JSON body that it takes, if it takes one.
    pub(crate) fn smallest_body(&self, document: &Value) -> Option<String> {
        let schema = self.body.pointer("/requestBody/content/application~1json/schema")?;
        Some(smallest(document, schema, "").to_string())
    }
}

/// The schema's example, or else the smallest value that it takes; texts are the names of their fields.
fn smallest(document: &Value, schema: &Value, field: &str) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return smallest(document, document.pointer(reference.trim_start_matches('#')).unwrap(), field);
    }
    if !schema["example"].is_null() {
        return schema["example"].clone();
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let objects = parts.iter().map(|part| smallest(document, part, field));
        return objects.flat_map(|object| object.as_object().cloned().unwrap()).collect::<Map<_, _>>().into();
    }
    let choices = [&schema["oneOf"][0], &schema["anyOf"][0], &schema["enum"][0]];
    if let Some(choice) = choices.into_iter().find(|choice| !choice.is_null()) {
        return if choice.is_object() { smallest(document, choice, field) } else { choice.clone() };
    }
    match schema["type"].as_str() {
        Some("string") => field.into(),
        Some("integer" | "number") => schema["minimum"].as_u64().unwrap_or(1).into(),
        Some("boolean") => false.into(),
        Some("array") => Value::Array(Vec::new()),
        _ => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = required.map(|name| (name.to_owned(), smallest(document, &schema["properties"][name], name)));
            fields.collect::<Map<_, _>>().into()
        }
    }
}

#[test]
fn the_committed_document_is_the_code_s() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/emergent.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == emergent_api::openapi_json().unwrap(),
        "openapi/emergent.json is stale; write it anew with `emergent openapi > openapi/emergent.json`"
    );
}

#[test]
fn every_operation_is_explained_and_has_a_name_of_its_own() {
    let mut names = HashSet::new();
    for operation in operations() {
        let name = operation.body["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name.clone()), "two operations are called {name}");
        assert!(operation.body["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        assert_eq!(operation.body["tags"].as_array().map(Vec::len), Some(1), "{name}");
    }
}

#[test]
fn every_failure_is_documented_as_a_problem() {
    for operation in operations() {
        for (status, response) in operation.body["responses"].as_object().unwrap() {
            if status.starts_with(['4', '5']) {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{} {} {status}", operation.method, operation.path);
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(emergent_api::openapi()).unwrap();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}
