//! An execution's output, onto this program's own.

use std::{io, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use emergent_api::http::problem::Problem;
use emergent_guest_proto::{Execution, Outcome, Stream, tools::BashResult};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    client::{Client, ClientError, Event},
    exit::ExitStatus,
    print,
};

/// For how long a lost connection is tried again, since the last event.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);

/// How the output ended.
pub(super) enum End {
    /// The execution has ended.
    Ended(Box<BashResult>),
    /// The execution goes on, and was not to be followed.
    Running,
    /// Nobody reads this program's output any more.
    ReaderGone,
}

#[derive(Deserialize)]
struct Chunk {
    text: Option<String>,
    base64: Option<String>,
}

#[derive(Deserialize)]
struct Dropped {
    stream: Stream,
    from: u64,
    to: u64,
}

enum Step {
    GoOn,
    End(End),
}

/// Writes the output from its beginning; goes on after a lost connection where it broke off.
pub(super) async fn output(
    client: &Client,
    execution: &str,
    only: Option<Stream>,
    follow: bool,
) -> Result<End, ClientError> {
    let path = format!("{execution}/output");
    let follow = if follow { "true" } else { "false" };
    let mut after: Option<String> = None;
    let mut heard = Instant::now();
    loop {
        match client.get_events(&path, &[("follow", follow)], after.as_deref()).await {
            Ok(mut events) => {
                while let Ok(Some(event)) = events.next().await {
                    heard = Instant::now();
                    if let Step::End(end) = take(&event, only)? {
                        return Ok(end);
                    }
                    after = Some(event.id).filter(|id| !id.is_empty()).or(after);
                }
            }
            Err(error) if !error.is_of_connection() || heard.elapsed() > PATIENCE => return Err(error),
            Err(_) => {}
        }
        if heard.elapsed() > PATIENCE {
            return Err(ClientError::Usage(
                "the server sends nothing any more; try `emergent workspace logs`".to_owned(),
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn take(event: &Event, only: Option<Stream>) -> Result<Step, ClientError> {
    match event.name.as_str() {
        "stdout" => write(Stream::Stdout, &read::<Chunk>(event)?, only),
        "stderr" => write(Stream::Stderr, &read::<Chunk>(event)?, only),
        "dropped" => {
            let Dropped { stream, from, to } = read(event)?;
            if only.is_none_or(|only| only == stream) {
                print::notice(&format!("[bytes {from} to {to} of {stream:?} are no longer kept]\n").to_lowercase());
            }
            Ok(Step::GoOn)
        }
        "result" => Ok(Step::End(End::Ended(Box::new(read(event)?)))),
        "status" => Ok(Step::End(End::Running)),
        "error" => Err(ClientError::Problem(Box::new(read::<Problem>(event)?))),
        // `execution`, and what a newer server may add.
        _ => Ok(Step::GoOn),
    }
}

fn read<T: serde::de::DeserializeOwned>(event: &Event) -> Result<T, ClientError> {
    serde_json::from_str(&event.data).map_err(ClientError::Nonsense)
}

fn write(stream: Stream, chunk: &Chunk, only: Option<Stream>) -> Result<Step, ClientError> {
    if only.is_some_and(|only| only != stream) {
        return Ok(Step::GoOn);
    }
    let decoded;
    let bytes = match (&chunk.text, &chunk.base64) {
        (Some(text), _) => text.as_bytes(),
        (None, Some(base64)) => {
            decoded = BASE64_STANDARD.decode(base64).unwrap_or_default();
            &decoded
        }
        (None, None) => &[],
    };
    let written = match stream {
        Stream::Stdout => print::raw_out(bytes),
        Stream::Stderr => print::raw_err(bytes),
    };
    match written {
        Ok(()) => Ok(Step::GoOn),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Step::End(End::ReaderGone)),
        Err(source) => Err(ClientError::Local { what: "the output cannot be written".to_owned(), source }),
    }
}

/// How this program ends when the command has ended so.
pub(super) fn status(result: &BashResult) -> ExitStatus {
    match (&result.outcome, result.exit_code) {
        (Outcome::Lost, _) | (_, None) => {
            print::error(&how_it_was_lost(result));
            ExitStatus::ExecFailed
        }
        (Outcome::TimedOut, _) => {
            print::error(&format!("the command's time was over after {} ms", result.duration_ms));
            ExitStatus::Command(124)
        }
        (Outcome::Exited | Outcome::Cancelled, Some(code)) => ExitStatus::Command(u8::try_from(code).unwrap_or(255)),
    }
}

/// Returns the reason for which a command was lost, and the number of bytes of its output that are kept.
pub(super) fn how_it_was_lost(result: &BashResult) -> String {
    let reason = print::printable(result.reason.as_deref().unwrap_or("the workspace ended under it"));
    let kept = match result.stdout_bytes + result.stderr_bytes {
        0 => "none of its output is kept".to_owned(),
        bytes => format!("{bytes} bytes of its output are kept"),
    };
    format!("the command was lost: {reason}; {kept}")
}

/// An execution on one line.
pub(super) fn summary(execution: &Execution) -> [String; 4] {
    use emergent_guest_proto::ExecutionState;
    let state = match &execution.state {
        ExecutionState::Running => "running".to_owned(),
        ExecutionState::Ended { outcome: Outcome::Exited, exit_code: Some(code), .. } => format!("exited {code}"),
        ExecutionState::Ended { outcome: Outcome::Exited | Outcome::Lost, .. } => "lost".to_owned(),
        ExecutionState::Ended { outcome: Outcome::TimedOut, .. } => "timed out".to_owned(),
        ExecutionState::Ended { outcome: Outcome::Cancelled, .. } => "cancelled".to_owned(),
    };
    let bytes = execution.stdout_bytes + execution.stderr_bytes;
    [execution.execution_id.to_string(), state, bytes.to_string(), execution.command.chars().take(80).collect()]
}
