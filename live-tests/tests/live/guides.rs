//! The first pages that a newcomer reads, pasted into a shell from top to bottom.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, server::program};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// A block that starts with this is run.
const SHELL: &str = "```sh\n";
/// How long all blocks of a page may take.
const DEADLINE: Duration = Duration::from_secs(200);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("the_readme_can_be_pasted", |runtime| paste(runtime, "README.md")),
        Case::new("getting_started_can_be_pasted", |runtime| paste(runtime, "docs/GETTING_STARTED.md")),
    ]
}

async fn paste(runtime: Runtime, page: &'static str) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the project's folder")?;
    let text = std::fs::read_to_string(root.join(page)).with_context(|| format!("reading {page}"))?;
    // What builds the programs has been run before this.
    let blocks: Vec<_> = shell_blocks(&text).filter(|block| !block.contains("make ")).collect();
    ensure!(blocks.len() >= 3, "{page} has {} blocks", blocks.len());

    let server = Server::on(runtime).await?;
    let folder = tempfile::tempdir().context("making a folder to work in")?;
    let programs = program("")?;
    // The pages name the folder that `make build` fills.
    let script = blocks.concat().replace("$PWD/target/release", &programs.to_string_lossy());
    let mut shell = Command::new("bash")
        .args(["-e", "-u", "-o", "pipefail", "-s"])
        .current_dir(folder.path())
        .env("EMERGENT_DATA_DIR", server.data_dir())
        .env_remove("EMERGENT_TOKEN")
        .env_remove("EMERGENT_SERVER")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting bash")?;
    // As a person's terminal would: the whole page at once, and nothing after it.
    let mut input = shell.stdin.take().context("the shell's input")?;
    let ended = tokio::time::timeout(DEADLINE, async {
        input.write_all(format!("{{ {script}\n}} </dev/null\n").as_bytes()).await?;
        drop(input);
        shell.wait_with_output().await
    });
    let ended = ended.await.with_context(|| format!("{page} did not end"))??;
    let said = format!("{}\n{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    ensure!(ended.status.success(), "{page} failed: {said}");
    // curl says nothing of a problem by its exit code.
    ensure!(!said.contains("/problems/"), "{page}: a call was refused: {said}");
    let left = server.api.get("/api/v1/agent/workspaces").await?.success()?;
    ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{page} leaves {left}");
    Ok(())
}

/// The contents of all blocks that a reader with nothing but a running server can paste.
fn shell_blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split(SHELL).skip(1).filter_map(|rest| rest.split("```").next())
}
