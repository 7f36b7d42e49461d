//! `emergent workspace exec`.

use emergent_api::{
    http::{problem::ProblemKind, size::ByteSize},
    resources::{processes::StartProcess, workspaces::view::WorkspaceView},
};
use emergent_guest_proto::{Execution, GuestPath, Outcome, RunAs, tools::BashResult};
use reqwest::Method;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::{
    INTERRUPTED,
    find::{self, WORKSPACES},
    follow::{self, End},
};
use crate::{
    cli::{ExecArgs, User},
    client::{Client, ClientError},
    commands::env::quoted,
    exit::ExitStatus,
    print,
};

/// Exit code for a program that is not in the image, as shells and Docker have it.
const NOT_FOUND: u8 = 127;
/// Exit code of a command that SIGKILL ended.
const KILLED: i32 = 137;

/// Runs the command. What fails here ends with 125, so that it cannot be taken for the command's own failure.
pub(super) async fn run(client: &Client, arguments: &ExecArgs, json: bool) -> ExitStatus {
    if arguments.shell.is_none() && arguments.command.is_empty() {
        print::error(&no_command(&arguments.workspace));
        return ExitStatus::Usage;
    }
    if arguments.tty {
        print::error(&format!(
            "a command has no terminal here; leave -t out, and -i passes standard input on:\n  \
             emergent workspace exec -i {} -- bash",
            arguments.workspace
        ));
        return ExitStatus::Usage;
    }
    match exec(client, arguments, json).await {
        Ok(status) => status,
        Err(error) => {
            print::error(&error.for_people());
            if error.is_problem(ProblemKind::MissingProgram) {
                ExitStatus::Command(NOT_FOUND)
            } else {
                ExitStatus::ExecFailed
            }
        }
    }
}

async fn exec(client: &Client, arguments: &ExecArgs, json: bool) -> Result<ExitStatus, ClientError> {
    let id = find::workspace(client, &arguments.workspace).await?;
    let processes = format!("{WORKSPACES}/{id}/processes");
    let started: Execution =
        client.post(&processes, &request(arguments)?).await.map_err(|error| advised(error, arguments))?;
    if arguments.detach {
        if json {
            print::json(&started);
        } else {
            print::line(started.execution_id.as_str());
        }
        return Ok(ExitStatus::Success);
    }
    let execution = format!("{processes}/{}", started.execution_id);
    let stdin = arguments.interactive.then(|| tokio::spawn(pass_stdin(client.clone(), execution.clone())));
    let logs = format!("emergent workspace logs {} {}", arguments.workspace, started.execution_id);
    let end = until_end(client, &execution, &logs).await;
    if let Some(stdin) = stdin {
        stdin.abort();
    }
    let end = match end {
        Err(error) if error.is_problem(ProblemKind::WorkspaceEnded) => return Err(of_end(client, id, error).await),
        end => end?,
    };
    match end {
        Some(End::Ended(result)) => {
            if is_killed(&result) {
                let more = workspace(client, id).await.map(|it| format!("{}\n", more_memory(&it))).unwrap_or_default();
                print::notice(&format!(
                    "the command was killed (SIGKILL). The kernel does that when a workspace needs more memory than its \
                     limit.\n{more}"
                ));
            }
            Ok(follow::status(&result))
        }
        Some(End::Running) => Err(ClientError::Usage("the server stopped following the command".to_owned())),
        Some(End::ReaderGone) => {
            // As a shell's pipeline would: the command has nobody to write for.
            cancel(client, &execution).await?;
            Ok(ExitStatus::Command(141))
        }
        None => Ok(ExitStatus::Command(INTERRUPTED)),
    }
}

fn no_command(workspace: &str) -> String {
    format!(
        "there is no command to run; for example\n  emergent workspace exec {workspace} -- ls -la\n  \
         emergent workspace exec {workspace} -c 'cd project && make'"
    )
}

/// Follows the output. Ctrl-C cancels the execution and goes on to its end; a second one leaves at once (`None`). Both
/// are told of, with the command `logs` that shows the execution afterwards.
async fn until_end(client: &Client, execution: &str, logs: &str) -> Result<Option<End>, ClientError> {
    let mut output = std::pin::pin!(follow::output(client, execution, None, true));
    tokio::select! {
        end = &mut output => return end.map(Some),
        _ = tokio::signal::ctrl_c() => {}
    }
    print::notice("\ninterrupted: the command is being ended; Ctrl-C again leaves at once\n");
    let cancelled = async {
        cancel(client, execution).await?;
        output.await
    };
    tokio::select! {
        end = cancelled => {
            let told = match &end {
                Ok(End::Ended(result)) if result.outcome == Outcome::Cancelled => "was ended",
                Ok(End::Ended(_)) => "had ended by itself",
                Ok(End::Running | End::ReaderGone) | Err(_) => "may go on",
            };
            print::notice(&format!("the command {told}; its output:\n  {logs}\n"));
            end.map(Some)
        }
        _ = tokio::signal::ctrl_c() => {
            print::notice(&format!("the command may go on; its output and its end:\n  {logs} --follow\n"));
            Ok(None)
        }
    }
}

/// Adds what to do about a command that was refused.
fn advised(error: ClientError, arguments: &ExecArgs) -> ClientError {
    let workspace = &arguments.workspace;
    match arguments.command.as_slice() {
        [line] if error.is_problem(ProblemKind::MissingProgram) && is_line(line) => error.advised(format!(
            "for a line with more than a program's name there is a shell:\n  emergent workspace exec {workspace} -c {}",
            quoted(line)
        )),
        _ if arguments.user == User::Root
            && error.is_problem(ProblemKind::PermissionDenied)
            && error.blames("user") =>
        {
            error.advised(
                "root is allowed when the workspace is made:\n  emergent workspace create --allow-root".to_owned(),
            )
        }
        _ => error,
    }
}

/// Whether a text says more to a shell than the name of a program.
fn is_line(text: &str) -> bool {
    text.contains(|it: char| it.is_whitespace() || "|&;<>()$`*?[]{}~=\"'\\".contains(it))
}

/// Whether SIGKILL ended the command, or a part of it that its shell told of.
fn is_killed(result: &BashResult) -> bool {
    result.outcome == Outcome::Exited && result.exit_code == Some(KILLED)
}

/// The workspace; `None` where it is gone, or the server does not answer.
async fn workspace(client: &Client, id: Uuid) -> Option<WorkspaceView> {
    client.get(&format!("{WORKSPACES}/{id}")).await.ok()
}

/// Returns the memory limit, and the command that makes a workspace with more.
fn more_memory(workspace: &WorkspaceView) -> String {
    let limit = ByteSize(workspace.resource_limits.memory);
    format!("the limit is {limit}; a workspace with more is made with\n  emergent workspace create --memory SIZE")
}

/// Adds the memory limit to the error of a workspace that ended under the command because it needed more.
async fn of_end(client: &Client, id: Uuid, error: ClientError) -> ClientError {
    let is_oom = |it: &WorkspaceView| it.error.as_ref().is_some_and(|fault| fault.reason == "oom");
    match workspace(client, id).await.filter(is_oom) {
        Some(workspace) => error.advised(more_memory(&workspace)),
        None => error,
    }
}

async fn cancel(client: &Client, execution: &str) -> Result<(), ClientError> {
    client.post_nothing::<Execution>(&format!("{execution}/cancel")).await.map(drop)
}

/// Passes this program's standard input on, as it comes, and closes the command's at its end. A command that does not
/// take all of it is no failure.
async fn pass_stdin(client: Client, execution: String) {
    let input = ReaderStream::new(tokio::io::stdin());
    client.send_bytes(Method::POST, &format!("{execution}/stdin"), &[("close", "true")], input).await.ok();
}

fn request(arguments: &ExecArgs) -> Result<StartProcess, ClientError> {
    let workdir = arguments.workdir.as_deref().map(str::parse::<GuestPath>).transpose();
    let timeout_ms = match arguments.timeout {
        None => None,
        Some(seconds) => Some(milliseconds(seconds).ok_or_else(|| {
            ClientError::Usage("--timeout takes a number of seconds above 0, at most 86400".to_owned())
        })?),
    };
    Ok(StartProcess {
        command: arguments.shell.clone(),
        argv: arguments.shell.is_none().then(|| arguments.command.clone()),
        workdir: workdir.map_err(|error| ClientError::Usage(format!("--workdir: {error}")))?,
        env: arguments.env.iter().cloned().collect(),
        timeout_ms,
        user: match arguments.user {
            User::Agent => RunAs::Agent,
            User::Root => RunAs::Root,
        },
        stdin: arguments.interactive,
        execution_id: arguments.execution_id.clone(),
    })
}

fn milliseconds(seconds: f64) -> Option<u64> {
    let time = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    let milliseconds = u64::try_from(time.as_millis()).ok()?;
    (1..=emergent_guest_proto::MAX_TIMEOUT_MS).contains(&milliseconds).then_some(milliseconds)
}
