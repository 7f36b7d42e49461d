//! `emergent project …`.

use emergent_api::resources::projects::{ProjectList, ProjectQuota, ProjectView, QuotaView};
use uuid::Uuid;

use crate::{
    cli::{ProjectCommand, QuotaArgs, WithServer},
    client::{Client, ClientError},
    print,
};

const PROJECTS: &str = "/api/v1/projects";

/// Does it.
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
    let QuotaArgs { max_active, max_total, max_cpu, max_memory, .. } = arguments;
    let mut wanted = known.quota;
    if let Some(limit) = max_active {
        wanted.max_active = limit.figure();
    }
    if let Some(limit) = max_total {
        wanted.max_total = limit.figure();
    }
    if let Some(limit) = max_cpu {
        wanted.max_cpu = limit.figure();
    }
    if let Some(limit) = max_memory {
        wanted.max_memory = limit.figure();
    }
    if wanted == known.quota { Ok(known) } else { client.put(&path, &wanted).await }
}

/// The project that is meant by an id or a name.
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
        ["id", "name", "max active", "max total", "max cpu", "max memory"],
        projects.iter().map(|project| {
            let [active, total, cpu, memory] = figures(&project.quota);
            [project.id.to_string(), project.name.clone(), active, total, cpu, memory]
        }),
    );
}

fn show(answer: &ProjectQuota) {
    let used = answer.used;
    let used = [
        used.active.to_string(),
        used.total.to_string(),
        used.cpu.to_string(),
        emergent_api::size::ByteSize(used.memory).to_string(),
    ];
    let names = ["active", "total", "cpu", "memory"];
    let rows = names.into_iter().zip(used).zip(figures(&answer.quota));
    print::table(["", "used", "at most"], rows.map(|((name, used), most)| [name.to_owned(), used, most]));
}

fn figures(quota: &QuotaView) -> [String; 4] {
    let QuotaView { max_active, max_total, max_cpu, max_memory } = *quota;
    let shown = |figure: Option<String>| figure.unwrap_or_else(|| "none".to_owned());
    [
        shown(max_active.map(|figure| figure.to_string())),
        shown(max_total.map(|figure| figure.to_string())),
        shown(max_cpu.map(|figure| figure.to_string())),
        shown(max_memory.map(|figure| figure.to_string())),
    ]
}
