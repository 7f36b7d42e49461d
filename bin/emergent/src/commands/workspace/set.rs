//! `emergent workspace set`.

use emergent_api::resources::workspaces::{
    idle::{IdleActionName, RequestedIdle},
    update::UpdateWorkspace,
    view::WorkspaceView,
};
use reqwest::Method;

use super::{
    find::{self, WORKSPACES},
    show,
};
use crate::{
    cli::{FixedLimits, IdleArgs, SetArgs},
    client::{Client, ClientError},
    print,
};

/// Changes a workspace, and shows it.
pub(super) async fn run(client: &Client, arguments: &SetArgs, json: bool) -> Result<(), ClientError> {
    let FixedLimits { cpu, memory, disk, pids } = &arguments.limits;
    let fixed = [("cpu", cpu), ("memory", memory), ("disk", disk), ("pids", pids)];
    if let Some((limit, value)) = fixed.into_iter().find_map(|(limit, value)| Some((limit, value.as_ref()?))) {
        return Err(ClientError::Usage(larger_copy(&arguments.workspace, limit, value)));
    }
    let id = find::workspace(client, &arguments.workspace).await?;
    let request = client.request(Method::PATCH, &format!("{WORKSPACES}/{id}"))?.json(&body(arguments));
    let workspace: WorkspaceView = client.answer(request).await?;
    if json {
        print::json(&workspace);
    } else {
        show::one(&workspace);
    }
    Ok(())
}

/// Returns the idle settings of the command line; `None` if it has none.
pub(super) fn idle(arguments: &IdleArgs) -> Option<RequestedIdle> {
    let idle = RequestedIdle { action: arguments.idle.map(IdleActionName::from), after_minutes: arguments.idle_after };
    (idle != RequestedIdle::default()).then_some(idle)
}

fn larger_copy(workspace: &str, limit: &str, value: &str) -> String {
    format!(
        "--{limit} cannot be changed: a workspace keeps the limits that it was made with. For a copy of it with others:\n  \
         emergent snapshot create {workspace} --name larger\n  \
         emergent workspace create --snapshot larger --{limit} {value}"
    )
}

fn body(arguments: &SetArgs) -> UpdateWorkspace {
    let set = arguments.label.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
    let unset = arguments.unlabel.iter().map(|key| (key.clone(), None));
    UpdateWorkspace {
        name: arguments.name.as_ref().map(|name| Some(name.clone()).filter(|name| !name.is_empty())),
        labels: set.chain(unset).collect(),
        ttl_days: arguments.ttl_days,
        expires_in_seconds: arguments.expires_in,
        idle: idle(&arguments.idle),
    }
}
