//! `emergent project …`.

use emergent_api::{
    http::size::ByteSize,
    resources::projects::{ProjectList, ProjectQuota, ProjectView, QuotaUseView, QuotaView},
};
use uuid::Uuid;

use crate::{
    cli::{Limit, ProjectCommand, QuotaArgs, WithServer},
    client::{Client, ClientError},
    print,
};

const PROJECTS: &str = "/api/v1/projects";

/// Runs the command.
pub(super) async fn run(arguments: WithServer<ProjectCommand>) -> Result<(), ClientError> {
    let client = Client::new(&arguments.client)?;
    let json = arguments.client.json;
    match arguments.command {
        ProjectCommand::Ls => {
            let projects: ProjectList = client.get(PROJECTS).await?;
            if json { print::json(&projects) } else { show_all(&projects.items) }
        }
        ProjectCommand::Quota(arguments) => {
            let answer = quota(&client, &arguments).await?;
            if json { print::json(&answer) } else { show(&answer) }
        }
    }
    Ok(())
}

async fn quota(client: &Client, arguments: &QuotaArgs) -> Result<ProjectQuota, ClientError> {
    let path = format!("{PROJECTS}/{}/quota", find(client, &arguments.project).await?);
    let known: ProjectQuota = client.get(&path).await?;
    let QuotaArgs {
        project: _,
        max_active,
        max_total,
        max_cpu,
        max_memory,
        max_pids,
        max_disk,
        max_mcp_servers,
        max_snapshots,
    } = arguments;
    let mut wanted = known.quota;
    set(&mut wanted.max_active, *max_active);
    set(&mut wanted.max_total, *max_total);
    set(&mut wanted.max_cpu, *max_cpu);
    set(&mut wanted.max_memory, *max_memory);
    set(&mut wanted.max_pids, *max_pids);
    set(&mut wanted.max_disk, *max_disk);
    set(&mut wanted.max_mcp_servers, *max_mcp_servers);
    set(&mut wanted.max_snapshots, *max_snapshots);
    if wanted == known.quota { Ok(known) } else { client.put(&path, &wanted).await }
}

/// Changes one figure, if an option sets it.
fn set<T>(figure: &mut Option<T>, option: Option<Limit<T>>) {
    if let Some(limit) = option {
        *figure = limit.figure();
    }
}

/// Finds the project that an id or a name refers to.
async fn find(client: &Client, given: &str) -> Result<Uuid, ClientError> {
    if let Ok(id) = Uuid::try_parse(given) {
        return Ok(id);
    }
    let projects: ProjectList = client.get(PROJECTS).await?;
    let found = projects.items.into_iter().find(|project| project.name == given);
    found.map(|project| project.id).ok_or_else(|| ClientError::NoSuchProject(given.to_owned()))
}

fn show_all(projects: &[ProjectView]) {
    print::table(
        ["id", "name", "active", "total", "mcp servers", "snapshots", "cpu", "memory", "pids", "disk"],
        projects.iter().map(|project| {
            let [active, total, servers, snapshots, cpu, memory, pids, disk] = figures(&project.quota);
            let (id, name) = (project.id.to_string(), project.name.clone());
            [id, name, active, total, servers, snapshots, cpu, memory, pids, disk]
        }),
    );
}

fn show(answer: &ProjectQuota) {
    let QuotaUseView { active, total, cpu, memory, pids, disk, mcp_servers, snapshots } = answer.used;
    let used = [
        active.to_string(),
        total.to_string(),
        mcp_servers.to_string(),
        snapshots.to_string(),
        cpu.to_string(),
        ByteSize(memory).to_string(),
        pids.to_string(),
        ByteSize(disk).to_string(),
    ];
    let names = ["active", "total", "mcp servers", "snapshots", "cpu", "memory", "pids", "disk"];
    let rows = names.into_iter().zip(used).zip(figures(&answer.quota));
    print::table(["", "used", "at most"], rows.map(|((name, used), most)| [name.to_owned(), used, most]));
}

fn figures(quota: &QuotaView) -> [String; 8] {
    fn shown(figure: Option<impl ToString>) -> String {
        figure.map_or_else(|| "none".to_owned(), |figure| figure.to_string())
    }
    let QuotaView { max_active, max_total, max_cpu, max_memory, max_pids, max_disk, max_mcp_servers, max_snapshots } =
        *quota;
    [
        shown(max_active),
        shown(max_total),
        shown(max_mcp_servers),
        shown(max_snapshots),
        shown(max_cpu),
        shown(max_memory),
        shown(max_pids),
        shown(max_disk),
    ]
}
