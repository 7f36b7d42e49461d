//! The list of tools.

use serde_json::{Value, json};

/// Tools without arguments, with what they do.
const PLAIN: [(&str, &str); 28] = [
    ("test_simple_text", "Answers with text"),
    ("test_image_content", "Answers with an image"),
    ("test_audio_content", "Answers with sound"),
    ("test_embedded_resource", "Answers with a resource"),
    ("test_multiple_content_types", "Answers with several kinds of content"),
    ("test_tool_with_logging", "Logs while it runs"),
    ("test_error_handling", "Always fails"),
    ("test_tool_with_progress", "Tells its progress"),
    ("test_elicitation_sep1034_defaults", "Asks the user, with defaults"),
    ("test_elicitation_sep1330_enums", "Asks the user, with choices"),
    ("test_reconnection", "Takes a moment"),
    ("test_missing_capability", "Needs a client that samples"),
    ("test_streaming_elicitation", "Asks the user on the way"),
    ("test_logging_tool", "Logs if it is asked to"),
    ("test_trigger_tool_change", "Tells that tools have changed"),
    ("test_trigger_prompt_change", "Tells that prompts have changed"),
    ("test_input_required_result_elicitation", "Asks for a name"),
    ("test_input_required_result_sampling", "Asks a model"),
    ("test_input_required_result_list_roots", "Asks for roots"),
    ("test_input_required_result_request_state", "Asks and keeps state"),
    ("test_input_required_result_multiple_inputs", "Asks for several things"),
    ("test_input_required_result_multi_round", "Asks twice"),
    ("test_input_required_result_tampered_state", "Asks and guards its state"),
    ("test_input_required_result_capabilities", "Asks only for what the client can do"),
    ("count", "Counts its calls"),
    ("whoami", "Tells what the client said of itself"),
    ("cancelled", "Tells which requests were cancelled"),
    ("update_watched", "Tells that the watched resource was updated"),
];

/// Tools that take one argument.
const WITH_ONE: [(&str, &str, &str, &str); 10] = [
    ("test_sampling", "Asks the client's model", "prompt", "string"),
    ("test_elicitation", "Asks the user", "message", "string"),
    ("echo", "Answers with what it was given", "text", "string"),
    ("slow", "Answers after so many milliseconds, with progress", "ms", "integer"),
    ("flood", "Logs so many times, then answers", "count", "integer"),
    ("long_line", "Answers with so many bytes", "bytes", "integer"),
    ("exit", "Ends the server with this code", "code", "integer"),
    ("hang", "Never answers", "reason", "string"),
    ("twice", "Answers twice", "text", "string"),
    ("stranger", "Answers a request that nobody made, then this one", "text", "string"),
];

pub(crate) fn tools() -> Value {
    let mut tools: Vec<Value> = PLAIN
        .into_iter()
        .map(|(name, what)| json!({ "name": name, "description": what, "inputSchema": { "type": "object" } }))
        .collect();
    tools.extend(WITH_ONE.into_iter().map(|(name, what, argument, kind)| {
        let schema = json!({ "type": "object", "properties": { (argument): { "type": kind } } });
        json!({ "name": name, "description": what, "inputSchema": schema })
    }));
    tools.push(json!({
        "name": "test_x_mcp_header", "description": "Repeats an argument in a header",
        "inputSchema": { "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
        } },
    }));
    tools.push(json!({
        "name": "json_schema_2020_12_tool", "description": "Tool with JSON Schema 2020-12 features",
        "x-vendor": { "kept": [1.0, 2.5, null] },
        "inputSchema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": { "address": { "$anchor": "addressDef", "type": "object", "properties": {
                "street": { "type": "string" }, "city": { "type": "string" } } } },
            "properties": {
                "name": { "type": "string" }, "address": { "$ref": "#/$defs/address" },
                "contactMethod": { "type": "string", "enum": ["phone", "email"] },
                "phone": { "type": "string" }, "email": { "type": "string" },
            },
            "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
            "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
            "then": { "required": ["phone"] }, "else": { "required": ["email"] },
            "additionalProperties": false,
        },
    }));
    Value::from(tools)
}

pub(crate) fn with_defaults() -> Value {
    json!({ "type": "object", "properties": {
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
        "verified": { "type": "boolean", "default": true },
    } })
}

pub(crate) fn with_choices() -> Value {
    let titled = |value: &str, title: &str| json!({ "const": value, "title": title });
    json!({ "type": "object", "properties": {
        "untitledSingle": { "type": "string", "enum": ["option1", "option2", "option3"] },
        "titledSingle": { "type": "string", "oneOf": [
            titled("value1", "First Option"), titled("value2", "Second Option"), titled("value3", "Third Option")] },
        "legacyEnum": { "type": "string", "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"] },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": ["option1", "option2", "option3"] } },
        "titledMulti": { "type": "array", "items": { "anyOf": [
            titled("value1", "First Choice"), titled("value2", "Second Choice"), titled("value3", "Third Choice")] } },
    } })
}
