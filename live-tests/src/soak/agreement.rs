//! The comparison at the end: the store, the engine and the API agree exactly, and nothing is there that nobody knows.

mod engine;
mod pool;
mod store;

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use self::engine::Had;
use super::{
    footprint::{processes, with_descendants},
    leak::{Finding, Leak},
    testbed::{Subject, Testbed},
};

/// Networks that belong to the engine or to all workspaces.
const NETWORKS: [&str; 4] = ["host", "none", "emergent-outbound", "emergent-isolated"];
/// The image that workspaces run, and the image that carries the guest into its volume.
const IMAGES: [&str; 2] = ["emergent/workspace:latest", "emergent-guest-carrier:1"];
/// A channel for calls and one for bulk data.
const CHANNELS: usize = 2;
/// The files in servers' data directories.
const DATA: [&str; 10] = [
    "bootstrap-token",
    "secret-key",
    "emergent.sqlite",
    "emergent.sqlite-shm",
    "emergent.sqlite-wal",
    "log",
    "lock",
    "server-id",
    "server-url",
    "server.lock",
];

/// Ids of the workspaces and snapshots that must be there; no others may.
#[derive(Debug, Default, Clone)]
pub struct Expected {
    /// Workspaces that somebody has.
    pub workspaces: BTreeSet<String>,
    /// Those of the workspaces that may be gone: their time is up.
    pub expired: BTreeSet<String>,
    /// Snapshots that somebody has.
    pub snapshots: BTreeSet<String>,
}

/// Processes that belong to the run.
#[derive(Debug, Default)]
pub struct Own {
    /// These.
    pub pids: BTreeSet<u32>,
    /// These, and all that are below them.
    pub trees: BTreeSet<u32>,
}

/// The objects in the engine that rows account for.
#[derive(Debug, Default)]
struct Accounted {
    containers: BTreeSet<String>,
    volumes: BTreeSet<String>,
    images: BTreeSet<String>,
}

/// Returns all differences and leftovers.
///
/// # Errors
/// When something could not be looked at.
pub async fn findings(testbed: &Testbed, expected: &Expected, own: Own) -> anyhow::Result<Vec<Finding>> {
    let had = Had::look(testbed).await?;
    let mut findings = Vec::new();
    let (mut workspaces, mut snapshots) = (BTreeSet::new(), BTreeSet::new());
    let mut accounted = Accounted { images: IMAGES.map(str::to_owned).into(), ..Accounted::default() };
    for subject in &testbed.subjects {
        let (rows, kept) = (subject.workspaces().await?, subject.snapshots().await?);
        findings.extend(store::findings(testbed, subject, &rows, &kept).await?);
        for row in &rows {
            let id = id_of(row);
            let name = format!("emergent-{id}");
            findings.extend(engine::workspace(row, &name, &had));
            accounted.containers.insert(name.clone());
            // One that came from the warm pool has a mark of its hand-over.
            accounted.volumes.insert(format!("{name}.handed-over"));
            accounted.volumes.insert(name);
            // The image of a snapshot that was deleted stays for as long as a workspace needs it.
            accounted.images.extend(row["snapshot_id"].as_str().map(engine::image_of_snapshot));
            workspaces.insert(id);
        }
        for row in &kept {
            let id = id_of(row);
            findings.extend(engine::snapshot(row, &id, &had));
            if row["state"] == "ready" {
                accounted.volumes.insert(engine::volume_of_snapshot(&id));
                accounted.images.insert(engine::image_of_snapshot(&id));
            }
            snapshots.insert(id);
        }
        findings.extend(pool::findings(subject, &had, &mut accounted).await?);
        findings.extend(files(subject).await);
    }
    let known = expected.workspaces.iter().filter(|id| workspaces.contains(*id) || !expected.expired.contains(*id));
    findings.extend(strangers(Leak::Row, "workspace", &known.cloned().collect(), &workspaces));
    findings.extend(strangers(Leak::Snapshot, "snapshot", &expected.snapshots, &snapshots));
    findings.extend(had.strangers(&accounted));
    findings.extend(channels(&had));
    if workspaces.is_empty() {
        findings.extend(leftover_processes(own, &had)?);
    }
    Ok(findings)
}

/// Returns a finding for each thing that only one side knows: the owners, or the API.
fn strangers(leak: Leak, what: &str, known: &BTreeSet<String>, listed: &BTreeSet<String>) -> Vec<Finding> {
    let differ = known.symmetric_difference(listed).map(|id| {
        let where_is_it = if known.contains(id) { "its owner has it, and the API does not" } else { "nobody made it" };
        Finding::new(leak, format!("{what} {id}: {where_is_it}"))
    });
    differ.collect()
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
fn channels(had: &Had) -> Vec<Finding> {
    let too_many = had.containers.iter().filter(|(_, container)| container.channels > CHANNELS);
    let shown = too_many.map(|(name, container)| format!("{} standing execs in {name}", container.channels));
    shown.map(|what| Finding::new(Leak::Process, what)).collect()
}

/// Processes that are neither the run's own nor its servers' nor its engine's nor in a container that is accounted for.
fn leftover_processes(own: Own, had: &Had) -> anyhow::Result<Vec<Finding>> {
    let all = processes()?;
    let of_container = |command: &str| had.containers.values().any(|it| command.contains(it.id.as_str()));
    let mut trees = own.trees;
    trees.extend(all.iter().filter(|(_, process)| of_container(&process.command)).map(|(pid, _)| *pid));
    let trees = with_descendants(trees, &all);
    let left = all.iter().filter(|(pid, _)| !own.pids.contains(pid) && !trees.contains(pid));
    Ok(left.map(|(pid, process)| Finding::new(Leak::Process, format!("{pid}: {}", process.command))).collect())
}

fn id_of(row: &Value) -> String {
    row["id"].as_str().unwrap_or_default().to_owned()
}
