//! A power cut takes nothing that a server needs to go on: its rows, and the files that they are of no use without.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test itself does")]

#[expect(dead_code, reason = "the other suite needs more of it")]
#[path = "../it/harness.rs"]
mod harness;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use emergent_test_power::{Disk, cuts, run};
use tempfile::TempDir;

use self::harness::Server;

/// A start takes a second or so.
const ONE_IN: usize = 4;

fn main() -> ExitCode {
    run(&[("a_server_goes_on_with_the_tokens_that_it_gave", tokens)])
}

fn tokens() -> Result<()> {
    let disk = Disk::mount()?;
    let data = tempfile::tempdir_in(disk.path())?;
    let name = data.path().file_name().context("a directory has a name")?.to_owned();
    disk.settle();
    let server = Server::start_in(data);
    let mut promises = Vec::new();
    for number in 0..8 {
        let name = format!("token-{number}");
        let made = server.client(&["token", "create", "--scope", "admin:read", "--name", &name]);
        ensure!(made.status == Some(0), "{made:?}");
        promises.push((disk.moment(), name));
    }
    let (_, data) = server.stop();
    cuts(&disk, ONE_IN, |cut, found| {
        // Also where there is a row of the first token: the file that has it came first.
        let next = Server::start_in(taken_out(&found.join(&name), found)?);
        let listed = next.client(&["token", "ls"]);
        ensure!(listed.status == Some(0), "the first token does not open it: {listed:?}");
        let missing = promises.iter().filter(|(moment, name)| *moment <= cut.moment && !listed.stdout.contains(name));
        let missing: Vec<_> = missing.map(|(_, name)| name).collect();
        ensure!(missing.is_empty(), "{missing:?} are missing in {}", listed.stdout);
        next.stop();
        Ok(())
    })?;
    drop(data);
    Ok(())
}

/// Moves what is in a directory to another that goes when it is dropped.
fn taken_out(from: &Path, beside: &Path) -> Result<TempDir> {
    let directory = tempfile::tempdir_in(beside)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), directory.path().join(entry.file_name()))?;
    }
    Ok(directory)
}
