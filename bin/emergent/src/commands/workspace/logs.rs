//! `emergent workspace logs`.

use emergent_guest_proto::execution::ExecutionList;

use super::{
    find::{self, WORKSPACES},
    follow,
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
    ended(logs(client, arguments, json).await)
}

async fn logs(client: &Client, arguments: &LogsArgs, json: bool) -> Result<(), ClientError> {
    let id = find::workspace(client, &arguments.workspace).await?;
    let processes = format!("{WORKSPACES}/{id}/processes");
    match &arguments.execution {
        Some(execution) => {
            let execution = format!("{processes}/{execution}");
            follow::output(client, &execution, arguments.stream, arguments.follow).await.map(drop)
        }
        None => {
            let list: ExecutionList = client.get(&processes).await?;
            if json {
                print::json(&list);
            } else {
                let rows = list.executions.iter().map(follow::summary);
                print::table(["execution", "state", "bytes", "command"], rows);
            }
            Ok(())
        }
    }
}
