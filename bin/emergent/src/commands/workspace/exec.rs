//! `emergent workspace exec`.

use emergent_api::{problem::ProblemKind, resources::processes::StartProcess};
use emergent_guest_proto::{Execution, GuestPath, RunAs};
use reqwest::Method;
use tokio_util::io::ReaderStream;

use super::{
    INTERRUPTED,
    find::{self, WORKSPACES},
    follow::{self, End},
};
use crate::{
    cli::{ExecArgs, User},
    client::{Client, ClientError},
    exit::ExitStatus,
    print,
};

/// Exit code for a program that is not in the image, as shells and Docker have it.
const NOT_FOUND: u8 = 127;

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
    let started: Execution = client.post(&processes, &request(arguments)?).await?;
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
    let end = until_end(client, &execution).await;
    if let Some(stdin) = stdin {
        stdin.abort();
    }
    match end? {
        Some(End::Ended(result)) => Ok(follow::status(&result)),
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

/// Follows the output. Ctrl-C cancels the execution and goes on to its end; a second one leaves at once (`None`).
async fn until_end(client: &Client, execution: &str) -> Result<Option<End>, ClientError> {
    let mut output = std::pin::pin!(follow::output(client, execution, None, true));
    tokio::select! {
        end = &mut output => return end.map(Some),
        _ = tokio::signal::ctrl_c() => {}
    }
    let cancelled = async {
        cancel(client, execution).await?;
        output.await
    };
    tokio::select! {
        end = cancelled => end.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
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
