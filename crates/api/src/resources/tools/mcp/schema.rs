//! The list of tools, with schemas from the OpenAPI document.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// How deep schemas name others.
const DEPTH: usize = 8;

/// Name, title, request, what it does, and whether it only reads.
const TOOLS: [(&str, &str, &str, &str, bool); 7] = [
    (
        "bash",
        "Run a command",
        "BashRequest",
        "Runs a shell command in the workspace and waits for it to exit. Gives back stdout, stderr and the exit code. Use \
         it for builds, tests and programs; for files prefer read, write, edit, glob and grep. Each call is a new shell: \
         it starts in /workspace or in workdir, and keeps neither the directory nor variables of an earlier call. The \
         command is stopped after timeout_ms (120000 by default). Processes left in the background go on. Over 50 KB the \
         middle of the output is cut, and a file that the answer names has all of it.",
        false,
    ),
    (
        "read",
        "Read a file",
        "ReadRequest",
        "Shows a text file with numbered lines (`N: text`), lists a directory, or tells size and media type of a binary \
         file. Long files come in parts: use offset and limit. A line over 2,000 characters is cut and says how to read \
         on in it by byte_offset.",
        true,
    ),
    (
        "write",
        "Write a file",
        "WriteRequest",
        "Writes a whole text file of at most 32 MiB, atomically, and makes its parent directories. An existing file is \
         replaced; to change part of one use edit. With expected_sha256 it is replaced only if it still holds what you \
         have read.",
        false,
    ),
    (
        "edit",
        "Edit a file",
        "EditRequest",
        "Replaces old_string with new_string in a file. old_string must match exactly, blanks included, and occur once \
         unless replace_all is set; otherwise nothing is changed. Do not include the line numbers that read shows. Line \
         ends become those of the file. It takes files of at most 16 MiB. Edits of one file at the same time are all kept.",
        false,
    ),
    (
        "glob",
        "Find files",
        "GlobRequest",
        "Finds at most 1,000 files whose path matches a glob, the most recently changed first. `*.rs` means files at any \
         depth, `src/*.rs` only those in src, `src/**/*.rs` all below it.",
        true,
    ),
    (
        "grep",
        "Search in files",
        "GrepRequest",
        "Searches the contents of files with a regular expression and gives back path, line number and line of each match. \
         `include` takes the same globs as glob. What .gitignore names and hidden names are left out, which `left_out` \
         counts; they are searched with no_ignore, or where path or include names them.",
        true,
    ),
    (
        "git",
        "Work with git",
        "GitRequest",
        "Works with the git repository at path: status, diff, log, branch, commit, push, pull, checkout. Answers are \
         structured, credentials are added outside of the workspace. Each action takes only the fields that name it.",
        false,
    ),
];

/// The tools as `tools/list` shows them.
pub(super) fn tools(document: &OpenApi) -> Value {
    let document = serde_json::to_value(document).unwrap_or_default();
    let schemas = &document["components"]["schemas"];
    let tool = |(name, title, request, description, reads): (&str, &str, &str, &str, bool)| {
        let mut schema = flat(&resolved(&schemas[request], schemas, DEPTH));
        // How an execution is found again has no use here.
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.remove("execution_id");
        }
        json!({
            "name": name, "title": title, "description": description, "inputSchema": schema,
            "annotations": { "title": title, "readOnlyHint": reads, "openWorldHint": matches!(name, "bash" | "git") },
        })
    };
    TOOLS.into_iter().map(tool).collect()
}

/// A schema with those that it names in their places.
fn resolved(schema: &Value, all: &Value, depth: usize) -> Value {
    match schema {
        Value::Object(fields) => {
            let mut own: Map<String, Value> = Map::new();
            if let Some(name) = fields.get("$ref").and_then(Value::as_str)
                && depth > 0
                && let Some(named) = name.rsplit('/').next().and_then(|name| all.get(name))
                && let Value::Object(named) = resolved(named, all, depth - 1)
            {
                own = named;
            }
            for (name, value) in fields.iter().filter(|(name, _)| *name != "$ref") {
                own.insert(name.clone(), resolved(value, all, depth));
            }
            Value::Object(own)
        }
        Value::Array(values) => values.iter().map(|value| resolved(value, all, depth)).collect(),
        other => other.clone(),
    }
}

/// One object with the properties of all variants: some models take no alternatives at the top.
fn flat(schema: &Value) -> Value {
    let mut properties = Map::new();
    let mut actions = Vec::new();
    gather(schema, &mut properties, &mut actions);
    let required = if actions.is_empty() { schema["required"].clone() } else { json!(["action"]) };
    if !actions.is_empty() {
        properties
            .insert("action".to_owned(), json!({ "type": "string", "description": "What to do.", "enum": actions }));
    }
    let mut flat = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if required.is_array() {
        flat["required"] = required;
    }
    flat
}

fn gather(schema: &Value, properties: &mut Map<String, Value>, actions: &mut Vec<Value>) {
    for parts in ["allOf", "oneOf", "anyOf"].iter().filter_map(|name| schema[*name].as_array()) {
        for part in parts {
            gather(part, properties, actions);
        }
    }
    let Some(own) = schema["properties"].as_object() else { return };
    let action = own.get("action").and_then(|action| action["enum"][0].as_str());
    for (name, property) in own.iter().filter(|(name, _)| *name != "action") {
        let mut property = property.clone();
        if let Some(action) = action {
            let said = property["description"].as_str().unwrap_or_default();
            let before = properties.get(name).and_then(|before| before["description"].as_str());
            property["description"] = match before {
                Some(before) => json!(format!("{before} For {action}: {said}")),
                None => json!(format!("For {action}: {said}")),
            };
        }
        properties.insert(name.clone(), property);
    }
    actions.extend(action.map(Value::from));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_has_a_plain_schema_of_its_request() {
        let tools = tools(&crate::openapi());
        let tools = tools.as_array().expect("a list");
        assert_eq!(tools.len(), 7);
        for tool in tools {
            let (name, schema) = (&tool["name"], &tool["inputSchema"]);
            assert_eq!(schema["type"], "object", "{name}");
            assert!(schema["properties"].as_object().is_some_and(|all| !all.is_empty()), "{name}");
            assert!(schema["required"].as_array().is_some_and(|all| !all.is_empty()), "{name}");
            assert!(!schema.to_string().contains("$ref"), "{name}");
            assert!(tool["description"].as_str().is_some_and(|text| text.len() > 50), "{name}");
        }
        let git = &tools[6]["inputSchema"];
        assert_eq!(git["properties"]["action"]["enum"].as_array().map(Vec::len), Some(8), "{git}");
        assert_eq!(tools[0]["inputSchema"]["required"], json!(["command"]));
        assert!(tools[0]["inputSchema"]["properties"].get("execution_id").is_none());
    }
}
