//! At the end: the store, the engine and the API agree exactly, and nothing is there that nobody knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::Context as _;
use bollard::{
    models::ContainerSummaryStateEnum,
    query_parameters::{
        InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions,
    },
};
use sea_orm::{ConnectionTrait as _, Database, Statement};
use serde_json::Value;

use super::{
    footprint::processes,
    ground::{Ground, Subject},
    leak::{Finding, Leak},
};

/// Networks that belong to the engine or to all workspaces.
const NETWORKS: [&str; 4] = ["host", "none", "emergent-outbound", "emergent-isolated"];
/// A channel for calls and one for bulk data.
const CHANNELS: usize = 2;
/// What every server has in its data directory.
const DATA: [&str; 7] =
    ["bootstrap-token", "emergent.sqlite", "emergent.sqlite-shm", "emergent.sqlite-wal", "log", "lock", "server.lock"];

/// What the engine has.
struct Had {
    /// Containers by name, with their states.
    containers: BTreeMap<String, ContainerSummaryStateEnum>,
    volumes: BTreeSet<String>,
    networks: BTreeSet<String>,
}

/// All that differs or is left over, while workspaces with these ids are known to be there.
///
/// # Errors
/// When something could not be looked at.
pub async fn findings(ground: &Ground, known: &BTreeSet<String>, tolerated: &[u32]) -> anyhow::Result<Vec<Finding>> {
    let had = Had::look(ground).await?;
    let mut findings = Vec::new();
    let (mut containers, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    let mut listed = BTreeSet::new();
    for subject in &ground.subjects {
        let rows = subject.rows().await?;
        findings.extend(store_and_api(subject, &rows).await?);
        for row in &rows {
            let id = row["id"].as_str().unwrap_or_default().to_owned();
            let name = format!("emergent-{id}");
            findings.extend(row_and_engine(row, &id, &had));
            containers.insert(name.clone());
            volumes.insert(name);
            listed.insert(id);
        }
        findings.extend(files(subject).await);
    }
    for id in known.symmetric_difference(&listed) {
        let where_is_it = if known.contains(id) { "its owner has it, and the API does not" } else { "nobody made it" };
        findings.push(Finding::new(Leak::Row, format!("workspace {id}: {where_is_it}")));
    }
    let strange = |leak, what: &str, names: Vec<&String>| {
        names.into_iter().map(|name| Finding::new(leak, format!("{what} {name}"))).collect::<Vec<_>>()
    };
    findings.extend(strange(
        Leak::Container,
        "container",
        had.containers.keys().filter(|name| !containers.contains(*name)).collect(),
    ));
    let is_strange = |name: &&String| !volumes.contains(*name) && !name.starts_with("emergent-guest-");
    findings.extend(strange(Leak::Volume, "volume", had.volumes.iter().filter(is_strange).collect()));
    let is_strange = |name: &&String| !NETWORKS.contains(&name.as_str());
    findings.extend(strange(Leak::Network, "network", had.networks.iter().filter(is_strange).collect()));
    findings.extend(channels(ground, &had).await);
    if listed.is_empty() {
        findings.extend(leftover_processes(tolerated)?);
    }
    Ok(findings)
}

// === impl Had ===

impl Had {
    async fn look(ground: &Ground) -> anyhow::Result<Self> {
        let docker = ground.engine.docker();
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let containers = docker.list_containers(Some(options)).await.context("listing containers")?;
        let containers = containers.into_iter().filter_map(|container| {
            let name = container.names?.first()?.trim_start_matches('/').to_owned();
            Some((name, container.state?))
        });
        let volumes = docker.list_volumes(None::<ListVolumesOptions>).await.context("listing volumes")?;
        let volumes = volumes.volumes.into_iter().flatten().map(|volume| volume.name).collect();
        let networks = docker.list_networks(None::<ListNetworksOptions>).await.context("listing networks")?;
        let networks = networks.into_iter().filter_map(|network| network.name).collect();
        Ok(Self { containers: containers.collect(), volumes, networks })
    }
}

/// The state of a row against the state of its container, and whether the volume is there.
fn row_and_engine(row: &Value, id: &str, had: &Had) -> Option<Finding> {
    use ContainerSummaryStateEnum::{CREATED, EXITED, PAUSED, RUNNING};
    let name = format!("emergent-{id}");
    let (container, volume) = (had.containers.get(&name), had.volumes.contains(&name));
    let agree = match (row["state"].as_str()?, row["error"]["reason"].as_str().unwrap_or_default()) {
        ("ready", _) => container == Some(&RUNNING) && volume,
        ("paused", _) => container == Some(&PAUSED) && volume,
        ("stopped", _) | ("error", "killed" | "oom" | "start_failed") => {
            matches!(container, Some(EXITED | CREATED)) && volume
        }
        // What somebody else removed stays removed; the volume goes with the workspace.
        ("error", "engine_lost") => container.is_none(),
        ("error", _) => container.is_none() && !volume,
        // Nobody is doing anything any more.
        _ => false,
    };
    let shown =
        format!("{id} is shown as {} {}; container {container:?}, volume: {volume}", row["state"], row["error"]);
    (!agree).then(|| Finding::new(Leak::Disagreement, shown))
}

/// The store's rows against the API's.
async fn store_and_api(subject: &Subject, rows: &[Value]) -> anyhow::Result<Vec<Finding>> {
    let path = subject.server.lock().await.data_dir().join("emergent.sqlite");
    let store = Database::connect(format!("sqlite://{}?mode=ro", path.display())).await.context("opening the store")?;
    let query = "SELECT lower(hex(id)) AS id, state FROM agent_workspaces WHERE state <> 'destroyed'";
    let stored = store.query_all_raw(Statement::from_string(store.get_database_backend(), query)).await?;
    let stored = stored.iter().map(|row| Ok((row.try_get::<String>("", "id")?, row.try_get::<String>("", "state")?)));
    let stored = stored.collect::<Result<BTreeMap<_, _>, sea_orm::DbErr>>().context("reading the store")?;
    let shown =
        rows.iter().filter_map(|row| Some((row["id"].as_str()?.replace('-', ""), row["state"].as_str()?.to_owned())));
    let shown: BTreeMap<_, _> = shown.collect();
    let differ = (stored != shown)
        .then(|| Finding::new(Leak::Disagreement, format!("the store has {stored:?}, and the API shows {shown:?}")));
    store.close().await.ok();
    Ok(differ.into_iter().collect())
}

/// Files that no server needs.
async fn files(subject: &Subject) -> Vec<Finding> {
    let folder = subject.server.lock().await.data_dir();
    let names = fs::read_dir(&folder).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let strange = names.filter(|name| !DATA.contains(&name.as_str()));
    strange.map(|name| Finding::new(Leak::File, format!("{} in {}", name, folder.display()))).collect()
}

/// Standing connections into containers beyond those that the server needs.
async fn channels(ground: &Ground, had: &Had) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in had.containers.keys() {
        let inspected = ground.engine.docker().inspect_container(name, None::<InspectContainerOptions>).await;
        let standing = inspected.ok().and_then(|container| container.exec_ids).map_or(0, |ids| ids.len());
        if standing > CHANNELS {
            findings.push(Finding::new(Leak::Process, format!("{standing} standing execs in {name}")));
        }
    }
    findings
}

/// Processes that are neither the run's own nor its servers' nor its engine's.
fn leftover_processes(tolerated: &[u32]) -> anyhow::Result<Vec<Finding>> {
    let all = processes()?;
    let left = all.iter().filter(|(pid, _)| !tolerated.contains(pid));
    Ok(left.map(|(pid, process)| Finding::new(Leak::Process, format!("{pid}: {}", process.command))).collect())
}
