//! `emergent workspace logs`.

use emergent_guest_proto::{ExecutionId, Outcome, execution::ExecutionList};

use super::{
    find::{self, WORKSPACES},
    follow::{self, End},
};
use crate::{
    cli::LogsArgs,
    client::{Client, ClientError},
    commands::ended,
    exit::ExitStatus,
    print,
};

/// Shows an execution's output, or which executions there are.
pub(super) async fn run(client: &Client, arguments: &LogsArgs, json: bool) -> ExitStatus {
    logs(client, arguments, json).await.unwrap_or_else(|error| ended(Err(error)))
}

async fn logs(client: &Client, arguments: &LogsArgs, json: bool) -> Result<ExitStatus, ClientError> {
    let id = find::workspace(client, &arguments.workspace).await?;
    let processes = format!("{WORKSPACES}/{id}/processes");
    let execution = match &arguments.execution {
        Some(execution) => Some(execution.clone()),
        None if arguments.follow => Some(newest(client, &processes, &arguments.workspace).await?),
        None => None,
    };
    match execution {
        Some(execution) => {
            let execution = format!("{processes}/{execution}");
            match follow::output(client, &execution, arguments.stream, arguments.follow).await? {
                End::Ended(result) if result.outcome == Outcome::Lost => {
                    print::error(&follow::how_it_was_lost(&result));
                    Ok(ExitStatus::Failure)
                }
                End::Ended(_) | End::Running | End::ReaderGone => Ok(ExitStatus::Success),
            }
        }
        None => {
            let list: ExecutionList = client.get(&processes).await?;
            if json {
                print::json(&list);
            } else {
                let rows = list.executions.iter().map(follow::summary);
                print::table(["execution", "state", "bytes", "command"], rows);
            }
            Ok(ExitStatus::Success)
        }
    }
}

/// The execution that began last, which is told of as nobody has named it.
async fn newest(client: &Client, processes: &str, workspace: &str) -> Result<ExecutionId, ClientError> {
    let ExecutionList { executions } = client.get(processes).await?;
    let newest = executions.into_iter().next().ok_or_else(|| {
        ClientError::Usage(format!(
            "no command was run here yet; for example\n  emergent workspace exec {workspace} --detach -- sleep 60"
        ))
    })?;
    print::notice(&format!("execution {}: {}\n", newest.execution_id, print::printable(&newest.command)));
    Ok(newest.execution_id)
}
