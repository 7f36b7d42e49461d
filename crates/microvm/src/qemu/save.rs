//! The saving and restoring of machines: QEMU's own migration, into a file and out of it.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Qemu, command::Start, qmp::Qmp};
use crate::{
    MachineSpec, MachineState, RestoreError, SaveError, Vmm as _, VmmError, VmmKind,
    identity::Identity,
    manifest::{Manifest, no_room},
};

/// The file with memory and devices.
const SNAPSHOT: &str = "snapshot";

/// QEMU's name for the open file.
const FILE: &str = "saved";

/// The interval at which QEMU is asked whether it is done.
const INTERVAL: Duration = Duration::from_millis(5);

/// The greatest speed of a migration; QEMU's own default is meant for networks.
const BYTES_PER_SECOND: u64 = 1 << 40;

pub(super) async fn save(qemu: &Qemu, dir: &Path, into: &Path) -> Result<(), SaveError> {
    match qemu.state(dir).await? {
        MachineState::Frozen => {}
        MachineState::Running => return Err(SaveError::NotFrozen),
        MachineState::Gone(reason) => return Err(VmmError::Gone(reason).into()),
    }
    let identity =
        Identity::read(dir).map_err(|source| SaveError::File { action: "read", path: Identity::file(dir), source })?;
    let saved = write(qemu, dir, into, &identity).await;
    if saved.is_err() {
        // The error that is reported is the first.
        let _ = fs::remove_file(into.join(SNAPSHOT));
    }
    saved
}

async fn write(qemu: &Qemu, dir: &Path, into: &Path, identity: &Identity) -> Result<(), SaveError> {
    let path = into.join(SNAPSHOT);
    let file = File::create_new(&path).map_err(|source| SaveError::File { action: "make", path, source })?;
    let mut qmp = qemu.control(dir).await?;
    qmp.hand_file(FILE, file.as_fd()).await?;
    limitless(&mut qmp).await?;
    qmp.command("save the machine", "migrate", json!({"uri": format!("fd:{FILE}")})).await?;
    migrated(&mut qmp, "save the machine").await.map_err(|error| no_room(error, into))?;
    drop(qmp);
    let (into, identity) = (into.to_owned(), identity.clone());
    let written = tokio::task::spawn_blocking(move || Manifest::write(&into, VmmKind::Qemu, &identity, &[SNAPSHOT]));
    written.await.map_err(|error| SaveError::Control(VmmError::from(io::Error::other(error))))?
}

pub(super) async fn restore(qemu: &Qemu, spec: &MachineSpec, from: &Path) -> Result<(), RestoreError> {
    let manifest = Manifest::read(from)?;
    let (acceleration, version) = qemu.usable().await?;
    let identity = Identity::new(spec, acceleration, &version);
    manifest.fits(from, VmmKind::Qemu, &identity)?;
    let path = from.join(SNAPSHOT);
    let file = File::open(&path)
        .map_err(|error| RestoreError::Damaged { from: from.to_owned(), reason: error.to_string() })?;
    drop(qemu.start(spec, acceleration, &version, Start::Incoming).await?);
    let read = read(qemu, spec, &file).await;
    if let Err(error) = read {
        // What is half restored is nothing.
        let _ = qemu.end(&spec.dir).await;
        return Err(match error {
            VmmError::Refused { message, .. } => RestoreError::Damaged { from: from.to_owned(), reason: message },
            // QEMU ends where it stops understanding what it reads.
            error => RestoreError::Damaged { from: from.to_owned(), reason: error.to_string() },
        });
    }
    Ok(())
}

async fn read(qemu: &Qemu, spec: &MachineSpec, file: &File) -> Result<(), VmmError> {
    let mut qmp = qemu.control(&spec.dir).await?;
    qmp.hand_file(FILE, file.as_fd()).await?;
    limitless(&mut qmp).await?;
    qmp.command("restore the machine", "migrate-incoming", json!({"uri": format!("fd:{FILE}")})).await?;
    migrated(&mut qmp, "restore the machine").await?;
    qmp.command("let the machine go on", "cont", json!({})).await.map(|_| ())
}

async fn limitless(qmp: &mut Qmp) -> Result<(), VmmError> {
    let parameters = json!({"max-bandwidth": BYTES_PER_SECOND});
    qmp.command("set the pace", "migrate-set-parameters", parameters).await.map(|_| ())
}

/// Waits until QEMU has written or read everything.
async fn migrated(qmp: &mut Qmp, action: &'static str) -> Result<(), VmmError> {
    loop {
        let progress = qmp.command(action, "query-migrate", json!({})).await?;
        let word = |name: &str| progress.get(name).and_then(Value::as_str).unwrap_or_default();
        match word("status") {
            "completed" => return Ok(()),
            "failed" | "cancelled" => {
                let message = match word("error-desc") {
                    "" => "it does not say why".to_owned(),
                    message => message.to_owned(),
                };
                return Err(VmmError::Refused { vmm: VmmKind::Qemu, action, message });
            }
            _ => sleep(INTERVAL).await,
        }
    }
}
