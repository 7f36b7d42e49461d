//! `emergent workspace …`.

mod audit;
pub(super) mod copy;
mod create;
mod exec;
mod files;
pub(super) mod find;
mod follow;
mod fork;
mod logs;
mod sessions;
mod set;
pub(super) mod show;

use emergent_api::resources::workspaces::{WorkspaceList, view::WorkspaceView};
use futures::StreamExt as _;
use uuid::Uuid;

use self::find::WORKSPACES;
use crate::{
    cli::{ListArgs, RemoveArgs, WithServer, WorkspaceCommand},
    client::{Client, ClientError},
    commands::ended,
    exit::ExitStatus,
    print,
};

/// Exit code of a program that Ctrl-C ended.
pub(super) const INTERRUPTED: u8 = 130;
/// The number of workspaces that are changed at once.
const AT_ONCE: usize = 8;

/// Does it.
pub(super) async fn run(arguments: WithServer<WorkspaceCommand>) -> ExitStatus {
    let json = arguments.client.json;
    let client = match Client::new(&arguments.client) {
        Ok(client) => client,
        Err(error) => return ended(Err(error)),
    };
    match arguments.command {
        WorkspaceCommand::Create(new) => create::run(&client, &new, json).await,
        WorkspaceCommand::Ls(list) => ended(ls(&client, &list, json).await),
        WorkspaceCommand::Show(which) => ended(show(&client, &which.workspaces, json).await),
        WorkspaceCommand::Exec(exec) => exec::run(&client, &exec, json).await,
        WorkspaceCommand::Cp(copy) => ended(copy::run(&client, copy::Side::Workspace, &copy.from, &copy.to).await),
        WorkspaceCommand::Files(command) => files::run(&client, &command, json).await,
        WorkspaceCommand::Logs(logs) => logs::run(&client, &logs, json).await,
        WorkspaceCommand::Audit(which) => ended(audit::run(&client, &which, json).await),
        WorkspaceCommand::Set(set) => ended(set::run(&client, &set, json).await),
        WorkspaceCommand::Attach(attach) => ended(sessions::attach(&client, &attach, json).await),
        WorkspaceCommand::Detach(detach) => ended(sessions::detach(&client, &detach, json).await),
        WorkspaceCommand::Sessions(which) => ended(sessions::list(&client, &which, json).await),
        WorkspaceCommand::Fork(copies) => fork::run(&client, &copies, json).await,
        WorkspaceCommand::Stop(which) => change(&client, &which.workspaces, "stop", "stopping", json).await,
        WorkspaceCommand::Pause(which) => change(&client, &which.workspaces, "pause", "pausing", json).await,
        WorkspaceCommand::Resume(which) => change(&client, &which.workspaces, "resume", "resuming", json).await,
        WorkspaceCommand::Rm(which) => remove(&client, &which, json).await,
    }
}

async fn ls(client: &Client, list: &ListArgs, json: bool) -> Result<(), ClientError> {
    let label = list.label.as_ref().map(|(key, value)| format!("{key}:{value}"));
    let mut query = vec![("limit", "200")];
    let given = [("state", &list.state), ("name", &list.name), ("label", &label), ("provider", &list.provider)];
    query.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
    if list.all {
        query.push(("include_destroyed", "true"));
    }
    let workspaces = find::all(client, &query).await?;
    if json {
        print::json(&WorkspaceList { items: workspaces, next_cursor: None });
    } else if list.quiet {
        workspaces.iter().for_each(|workspace| print::line(&workspace.id.to_string()));
    } else {
        show::table(&workspaces);
        show::faults(&workspaces);
    }
    Ok(())
}

async fn show(client: &Client, which: &[String], json: bool) -> Result<(), ClientError> {
    let mut workspaces = Vec::new();
    for given in which {
        let id = find::workspace(client, given).await?;
        workspaces.push(client.get::<WorkspaceView>(&format!("{WORKSPACES}/{id}")).await?);
    }
    match workspaces.as_slice() {
        [only] if json => print::json(only),
        all if json => print::json(&all),
        all => all.iter().for_each(show::one),
    }
    Ok(())
}

/// Brings workspaces to another state, several at once; one that fails does not keep the others from it.
async fn change(client: &Client, which: &[String], operation: &str, doing: &str, json: bool) -> ExitStatus {
    let progress = print::spinner(doing);
    let changes = which.iter().map(|given| async move {
        let id = find::workspace(client, given).await?;
        client.post_nothing::<WorkspaceView>(&format!("{WORKSPACES}/{id}/{operation}")).await
    });
    let results: Vec<_> = futures::stream::iter(changes).buffered(AT_ONCE).collect().await;
    progress.finish_and_clear();
    let (done, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let done: Vec<_> = done.into_iter().flatten().collect();
    match done.as_slice() {
        [only] if json && which.len() == 1 => print::json(only),
        all if json => print::json(&all),
        all => all.iter().for_each(|workspace| print::line(&format!("{} {}", workspace.id, workspace.state.as_str()))),
    }
    report(failed.into_iter().filter_map(Result::err))
}

/// Destroys workspaces, several at once; one that fails or does not exist does not keep the others from it.
async fn remove(client: &Client, which: &RemoveArgs, json: bool) -> ExitStatus {
    let found = match found_to_remove(client, which).await {
        Ok(Some(found)) => found,
        Ok(None) => return ExitStatus::Usage,
        Err(error) => return ended(Err(error)),
    };
    let progress = print::spinner("removing");
    let removals = found.into_iter().map(|found| async move {
        let id = found?;
        client.delete(&format!("{WORKSPACES}/{id}")).await.map(|()| id)
    });
    let results: Vec<_> = futures::stream::iter(removals).buffered(AT_ONCE).collect().await;
    progress.finish_and_clear();
    let (done, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let done: Vec<Uuid> = done.into_iter().flatten().collect();
    if json {
        print::json(&serde_json::json!({ "removed": done }));
    } else {
        done.iter().for_each(|id| print::line(&format!("{id} removed")));
    }
    report(failed.into_iter().filter_map(Result::err))
}

/// The ids of the workspaces to remove, and an error for each name that means none. All names are looked up before any
/// workspace is removed: afterwards, the beginning of an id might mean another one. `None`: nobody has said yes to the
/// removal of all.
async fn found_to_remove(
    client: &Client,
    which: &RemoveArgs,
) -> Result<Option<Vec<Result<Uuid, ClientError>>>, ClientError> {
    if which.all {
        let all = find::all(client, &[("limit", "200")]).await?;
        let agreed = which.yes || all.is_empty() || agrees(&all);
        return Ok(agreed.then(|| all.into_iter().map(|workspace| Ok(workspace.id)).collect()));
    }
    let mut found = Vec::new();
    for given in &which.workspaces {
        found.push(find::workspace(client, given).await);
    }
    Ok(Some(found))
}

/// Shows what would go, and asks whoever sits at a terminal.
fn agrees(all: &[WorkspaceView]) -> bool {
    for workspace in all {
        let name = workspace.name.as_deref().unwrap_or_default();
        print::notice(&format!("{} {:<10} {}\n", workspace.id, workspace.state.as_str(), print::printable(name)));
    }
    let what = if all.len() == 1 { "this workspace".to_owned() } else { format!("these {} workspaces", all.len()) };
    match print::confirmed(&format!("Destroy {what} and all files in them?")) {
        Some(true) => true,
        Some(false) => {
            print::notice("nothing was removed\n");
            false
        }
        None => {
            print::error("nothing was removed: there is no terminal to ask at; --yes removes them without asking");
            false
        }
    }
}

pub(super) fn report(failures: impl Iterator<Item = ClientError>) -> ExitStatus {
    let mut status = ExitStatus::Success;
    for failure in failures {
        status = ended(Err(failure));
    }
    status
}
