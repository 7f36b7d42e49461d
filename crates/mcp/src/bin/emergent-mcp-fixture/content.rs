//! The fixture's prompts, resources and lists.

use serde_json::{Value, json};

use crate::{peer::Failure, schemas};

/// One red pixel.
pub(crate) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// No sound at all.
pub(crate) const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQAAAAA=";

const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

pub(crate) fn server_info() -> Value {
    json!({ "name": "emergent-mcp-fixture", "version": env!("CARGO_PKG_VERSION") })
}

/// The version of the older era that both sides speak.
pub(crate) fn agreed(params: &Value) -> &'static str {
    let wanted = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    VERSIONS.into_iter().find(|version| *version == wanted).unwrap_or(VERSIONS[0])
}

/// Answers the methods that are the same in both eras.
pub(crate) fn answer(method: &str, params: &Value) -> Result<Value, Failure> {
    let name = || params.get("name").and_then(Value::as_str).unwrap_or_default();
    match method {
        "tools/list" => Ok(json!({ "tools": schemas::tools() })),
        "prompts/list" => Ok(json!({ "prompts": prompts() })),
        "prompts/get" => prompt(name(), params.get("arguments").unwrap_or(&Value::Null)),
        "resources/list" => Ok(json!({ "resources": resources() })),
        "resources/templates/list" => Ok(json!({ "resourceTemplates": [{
            "uriTemplate": "test://template/{id}/data", "name": "template", "description": "Data of an id",
            "mimeType": "application/json",
        }] })),
        "resources/read" => read(params.get("uri").and_then(Value::as_str).unwrap_or_default()),
        "completion/complete" => {
            Ok(json!({ "completion": { "values": ["test-one", "test-two"], "total": 2, "hasMore": false } }))
        }
        _ => Err(Failure::unknown_method(method)),
    }
}

fn prompts() -> Value {
    let argument = |name: &str| json!({ "name": name, "description": "An argument", "required": true });
    json!([
        { "name": "test_simple_prompt", "description": "A prompt without arguments" },
        { "name": "test_prompt_with_arguments", "description": "A prompt with arguments",
          "arguments": [argument("arg1"), argument("arg2")] },
        { "name": "test_prompt_with_embedded_resource", "description": "A prompt with a resource",
          "arguments": [argument("resourceUri")] },
        { "name": "test_prompt_with_image", "description": "A prompt with an image" },
        { "name": "test_input_required_result_prompt", "description": "A prompt that asks first" },
    ])
}

fn prompt(name: &str, arguments: &Value) -> Result<Value, Failure> {
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    let text = |text: &str| json!({ "role": "user", "content": { "type": "text", "text": text } });
    let messages = match name {
        "test_simple_prompt" => json!([text("This is a simple prompt for testing.")]),
        "test_prompt_with_arguments" => {
            let (one, two) = (argument("arg1"), argument("arg2"));
            json!([text(&format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))])
        }
        "test_prompt_with_embedded_resource" => json!([
            { "role": "user", "content": { "type": "resource", "resource": {
                "uri": argument("resourceUri"), "mimeType": "text/plain",
                "text": "Embedded resource content for testing." } } },
            text("Please process the embedded resource above."),
        ]),
        "test_prompt_with_image" => json!([
            { "role": "user", "content": { "type": "image", "data": PNG, "mimeType": "image/png" } },
            text("Please analyze the image above."),
        ]),
        _ => return Err(Failure::new(-32602, &format!("Unknown prompt: {name}"))),
    };
    Ok(json!({ "messages": messages }))
}

fn resources() -> Value {
    let one = |uri: &str, name: &str, mime: &str| json!({ "uri": uri, "name": name, "description": format!("The {name}"), "mimeType": mime });
    json!([
        one("test://static-text", "static text", "text/plain"),
        one("test://static-binary", "static image", "image/png"),
        one("test://watched-resource", "watched resource", "text/plain"),
    ])
}

fn read(uri: &str) -> Result<Value, Failure> {
    let contents = match uri {
        "test://static-text" => {
            json!({ "mimeType": "text/plain", "text": "This is the content of the static text resource." })
        }
        "test://static-binary" => json!({ "mimeType": "image/png", "blob": PNG }),
        "test://watched-resource" => json!({ "mimeType": "text/plain", "text": "Watched." }),
        _ => match uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data")) {
            Some(id) => {
                let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
                json!({ "mimeType": "application/json", "text": data.to_string() })
            }
            None => {
                let data = Some(json!({ "uri": uri }));
                return Err(Failure { code: -32602, message: "Resource not found".to_owned(), data });
            }
        },
    };
    let mut contents = contents;
    contents["uri"] = json!(uri);
    Ok(json!({ "contents": [contents] }))
}
