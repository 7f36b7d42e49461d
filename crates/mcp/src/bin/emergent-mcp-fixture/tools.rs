//! The tools, as both eras know them; those that ask the client belong to the older era.

use std::{sync::atomic::Ordering, thread::sleep, time::Duration};

use serde_json::{Value, json};

use crate::{
    content::{PNG, WAV},
    peer::{Failure, Request},
    schemas,
};

const MOMENT: Duration = Duration::from_millis(50);

/// Calls a tool; `None` where the answer was given already, or never is.
pub(crate) fn call(request: &Request) -> Result<Option<Value>, Failure> {
    let peer = &request.peer;
    let name = request.params.get("name").and_then(Value::as_str).unwrap_or_default();
    let nothing = json!({});
    let arguments = request.params.get("arguments").unwrap_or(&nothing);
    let text_of = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    let number_of = |name: &str| arguments.get(name).and_then(Value::as_u64).unwrap_or_default();
    let result = match name {
        "test_simple_text" | "test_x_mcp_header" | "json_schema_2020_12_tool" => {
            text("This is a simple text response for testing.")
        }
        "test_image_content" => json!({ "content": [{ "type": "image", "data": PNG, "mimeType": "image/png" }] }),
        "test_audio_content" => json!({ "content": [{ "type": "audio", "data": WAV, "mimeType": "audio/wav" }] }),
        "test_embedded_resource" => json!({ "content": [{ "type": "resource", "resource": {
            "uri": "test://embedded-resource", "mimeType": "text/plain",
            "text": "This is an embedded resource content." } }] }),
        "test_multiple_content_types" => json!({ "content": [
            { "type": "text", "text": "Multiple content types test:" },
            { "type": "image", "data": PNG, "mimeType": "image/png" },
            { "type": "resource", "resource": { "uri": "test://mixed-content-resource",
                "mimeType": "application/json", "text": "{\"test\":\"data\",\"value\":123}" } },
        ] }),
        "test_error_handling" => json!({ "isError": true, "content": [
            { "type": "text", "text": "This tool intentionally returns an error for testing" }] }),
        "test_tool_with_logging" => {
            for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                peer.log(line);
                sleep(MOMENT);
            }
            text("logged")
        }
        "test_logging_tool" => {
            if !request.is_modern() || request.meta("logLevel").is_some() {
                peer.log("asked to log");
            }
            text("done")
        }
        "test_tool_with_progress" => {
            for done in [0, 50, 100] {
                request.progress(done);
                sleep(MOMENT);
            }
            text("done")
        }
        "test_reconnection" => {
            sleep(4 * MOMENT);
            text("Reconnection test completed")
        }
        "test_trigger_tool_change" | "test_trigger_prompt_change" => {
            peer.changed(if name.contains("tool_") { "tools" } else { "prompts" }, request.is_modern());
            text("changed")
        }
        "test_sampling" => {
            let message = json!({ "role": "user", "content": { "type": "text", "text": text_of("prompt") } });
            let answer = peer.ask("sampling/createMessage", &json!({ "messages": [message], "maxTokens": 100 }))?;
            text(&format!("LLM response: {}", answer["content"]["text"].as_str().unwrap_or_default()))
        }
        "test_elicitation" => elicit(request, text_of("message"), &person())?,
        "test_elicitation_sep1034_defaults" => elicit(request, "Defaults", &schemas::with_defaults())?,
        "test_elicitation_sep1330_enums" => elicit(request, "Choices", &schemas::with_choices())?,
        "echo" => json!({ "content": [{ "type": "text", "text": text_of("text") }], "x-vendor": { "kept": 1.0 } }),
        "count" => text(&(peer.count.fetch_add(1, Ordering::Relaxed) + 1).to_string()),
        "whoami" => text(&peer.client().to_string()),
        "cancelled" => text(&Value::from(peer.cancelled()).to_string()),
        "update_watched" => {
            let uri = "test://watched-resource";
            if peer.is_subscribed(uri) {
                peer.notify("notifications/resources/updated", &json!({ "uri": uri }));
            }
            text("updated")
        }
        "slow" => {
            request.progress(1);
            let steps = number_of("ms") / 10;
            for _ in 0..steps {
                sleep(Duration::from_millis(10));
                if peer.cancelled().contains(&request.id) {
                    return Ok(None);
                }
            }
            text("at last")
        }
        "flood" => {
            for number in 0..number_of("count") {
                peer.log(&format!("{} {number}", text_of("text")));
            }
            text("flooded")
        }
        "long_line" => {
            let length = usize::try_from(number_of("bytes")).unwrap_or(usize::MAX);
            sleep(Duration::from_millis(number_of("ms")));
            // Past the serializer, which takes seconds for 100 MB in a debug build.
            let (head, tail) = (r#"{"jsonrpc":"2.0","id":"#, r#","result":{"content":[{"type":"text","text":""#);
            peer.raw(&format!("{head}{}{tail}{}\"}}]}}}}\n", request.id, "x".repeat(length)));
            return Ok(None);
        }
        "exit" => {
            eprint_last_words();
            std::process::exit(i32::try_from(number_of("code")).unwrap_or(1));
        }
        "hang" => return Ok(None),
        "twice" => {
            request.result(text(text_of("text")));
            text(text_of("text"))
        }
        "stranger" => {
            let id = json!("nobody's");
            peer.send(&json!({ "jsonrpc": "2.0", "id": id, "result": {} }));
            peer.send(&json!({ "jsonrpc": "2.0", "id": 987_654_321, "error": { "code": 1, "message": "" } }));
            peer.send(&json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                "params": { "progressToken": "nobody's", "progress": 1 } }));
            text(text_of("text"))
        }
        _ => return Err(Failure::new(-32602, &format!("Unknown tool: {name}"))),
    };
    Ok(Some(result))
}

pub(crate) fn text(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

fn person() -> Value {
    json!({ "type": "object", "required": ["username", "email"], "properties": {
        "username": { "type": "string", "description": "User's response" },
        "email": { "type": "string", "description": "User's email address" } } })
}

fn elicit(request: &Request, message: &str, schema: &Value) -> Result<Value, Failure> {
    let answer = request.peer.ask("elicitation/create", &json!({ "message": message, "requestedSchema": schema }))?;
    let (action, content) = (answer["action"].as_str().unwrap_or_default(), &answer["content"]);
    Ok(text(&format!("Elicitation completed: action={action}, content={content}")))
}

fn eprint_last_words() {
    use std::io::Write as _;
    // For tests of what is kept of stderr.
    let _ = writeln!(std::io::stderr(), "last words of the fixture");
}
