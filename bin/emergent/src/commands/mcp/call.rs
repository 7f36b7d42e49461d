//! `emergent mcp call`.

use emergent_api::resources::mcp_servers::{request::McpCall, view::McpAnswer};
use reqwest::Method;
use serde_json::{Value, value::RawValue};

use super::path;
use crate::{
    client::{Client, ClientError},
    exit::ExitStatus,
    print,
};

/// Calls a method. A name with a slash is a method's; any other is a tool's.
pub(super) async fn call(
    client: &Client,
    server: &str,
    (method, params): (&str, &str),
    timeout: Option<u64>,
    json: bool,
) -> Result<ExitStatus, ClientError> {
    let is_method = method.contains('/') || method == "ping";
    let (method, params) = if is_method {
        (method.to_owned(), params.to_owned())
    } else {
        let name = Value::from(method);
        ("tools/call".to_owned(), format!(r#"{{"name":{name},"arguments":{params}}}"#))
    };
    let params = RawValue::from_string(params).map_err(ClientError::BadParameters)?;
    let body = McpCall { method, params: Some(params), timeout_ms: timeout.map(|seconds| seconds * 1000) };
    let answer: McpAnswer = client.answer(client.request(Method::POST, &path(server, "/call"))?.json(&body)).await?;
    if let Some(error) = answer.error {
        print::error(&format!("the server answered with error {}: {}", error.code, error.message));
        return Ok(ExitStatus::Failure);
    }
    let result: Value = match answer.result {
        Some(result) => serde_json::from_str(result.get()).map_err(ClientError::Nonsense)?,
        None => Value::Null,
    };
    let failed = result["isError"] == true;
    match text_of(&result).filter(|_| !json) {
        Some(text) if failed => print::error(&text),
        Some(text) => print::line(&text),
        None => print::json(&result),
    }
    Ok(if failed { ExitStatus::Failure } else { ExitStatus::Success })
}

/// Returns a tool's result as text for people; `None` if it is no tool's result.
fn text_of(result: &Value) -> Option<String> {
    let content = result["content"].as_array()?;
    if content.is_empty() && !result["structuredContent"].is_null() {
        return None;
    }
    let parts: Vec<String> = content.iter().map(part).collect();
    Some(parts.join("\n").trim_end_matches('\n').to_owned())
}

/// Formats one part of a tool's result.
fn part(part: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match part["type"].as_str() {
        Some("text") => text(&part["text"]),
        Some(kind @ ("image" | "audio")) => {
            let bytes = part["data"].as_str().map_or(0, |data| data.len() / 4 * 3);
            format!("[{kind} {}, about {bytes} bytes; --json has it]", text(&part["mimeType"]))
        }
        Some("resource") if part["resource"]["text"].is_string() => text(&part["resource"]["text"]),
        Some("resource") => format!("[resource {}; --json has it]", text(&part["resource"]["uri"])),
        Some("resource_link") => format!("[link to {}]", text(&part["uri"])),
        _ => part.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tools_result_is_text_for_people() {
        let result = json!({ "content": [
            { "type": "text", "text": "one\ntwo\n" },
            { "type": "image", "mimeType": "image/png", "data": "AAAA" },
            { "type": "resource", "resource": { "uri": "file:///a", "text": "inside" } },
            { "type": "resource_link", "uri": "file:///b" },
        ] });
        let text = text_of(&result).unwrap();
        let expected = "one\ntwo\n\n[image image/png, about 3 bytes; --json has it]\ninside\n[link to file:///b]";
        assert_eq!(text, expected);
        assert_eq!(text_of(&json!({ "tools": [] })), None);
        assert_eq!(text_of(&json!({ "content": [], "structuredContent": { "a": 1 } })), None);
        assert_eq!(text_of(&json!({ "content": [] })).as_deref(), Some(""));
    }
}
