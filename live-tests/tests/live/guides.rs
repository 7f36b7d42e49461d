//! The guides, pasted into a shell from top to bottom.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime, Server,
    api::{SNAPSHOTS, WORKSPACES},
    mcp::SERVERS,
    server::program,
};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// The folder with all guides but the README.
const GUIDES: &str = "docs";
/// A block that starts with this is run, unless a word behind it says what it needs that is not here.
const SHELL: &str = "```sh";
/// The needs of such a block: an index of packages, a host that is prepared or changed, a build from source.
const NEEDS: [&str; 3] = ["internet", "host", "build"];
/// How long all blocks of a page may take.
const DEADLINE: Duration = Duration::from_secs(200);
/// How long all pages may take.
const ALL_GUIDES: Duration = Duration::from_secs(600);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("the_readme_can_be_pasted", |runtime| paste(runtime, "README.md")),
        Case::new("every_guide_can_be_pasted", every_guide).within(ALL_GUIDES),
    ]
}

async fn every_guide(runtime: Runtime) -> anyhow::Result<()> {
    let mut pages: Vec<_> = std::fs::read_dir(root()?.join(GUIDES))?
        .map(|entry| Ok(format!("{GUIDES}/{}", entry?.file_name().to_string_lossy())))
        .collect::<std::io::Result<Vec<_>>>()?;
    pages.retain(|page| page.ends_with(".md"));
    pages.sort();
    let mut pasted = Vec::new();
    for page in &pages {
        if !shell_blocks(page)?.is_empty() {
            paste(runtime, page).await?;
            pasted.push(page.as_str());
        }
    }
    for page in ["AUDIT", "CLI", "GETTING_STARTED", "LIFECYCLE", "SNAPSHOTS"] {
        ensure!(pasted.iter().any(|pasted| pasted.contains(page)), "{page} has nothing to paste");
    }
    Ok(())
}

async fn paste(runtime: Runtime, page: &str) -> anyhow::Result<()> {
    let blocks = shell_blocks(page)?;
    let server = Server::on(runtime).await?;
    let folder = tempfile::tempdir().context("making a folder to work in")?;
    let programs = program("")?.to_string_lossy().into_owned();
    // The first pages name the folder that `make build` fills; the others take for granted that it is in the path.
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let script = blocks.concat().replace("$PWD/target/release", &programs);
    let mut shell = Command::new("bash")
        .args(["-e", "-u", "-o", "pipefail", "-s"])
        .current_dir(folder.path())
        .env("PATH", path)
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
    for kept in [WORKSPACES, SNAPSHOTS, SERVERS] {
        let left = server.api.get(kept).await?.success()?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{page} leaves {left}");
    }
    Ok(())
}

fn root() -> anyhow::Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the project's folder")
}

/// The contents of all blocks of a page that a reader with nothing but a running server can paste.
fn shell_blocks(page: &str) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(root()?.join(page)).with_context(|| format!("reading {page}"))?;
    let mut blocks = Vec::new();
    for rest in text.split(SHELL).skip(1) {
        let block = rest.split("```").next().unwrap_or_default();
        let (needs, commands) = block.split_once('\n').unwrap_or_default();
        match needs.trim() {
            "" => blocks.push(commands.to_owned()),
            needs => ensure!(NEEDS.contains(&needs), "{page}: a block needs {needs:?}, which is none of {NEEDS:?}"),
        }
    }
    Ok(blocks)
}
