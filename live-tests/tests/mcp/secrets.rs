//! The secrets of a hosted server reach its processes, and nothing else.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime,
    mcp::{SERVERS, host, start, text},
};
use serde_json::json;

const SECRET: &str = "correct-horse-4711";

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("mcp::secrets_reach_the_process_and_nobody_else", secrets_reach_the_process)]
}

async fn secrets_reach_the_process(runtime: Runtime) -> anyhow::Result<()> {
    let server = start(runtime).await?;
    let check = "[ \"$API_KEY\" = correct-horse-4711 ] || exit 9; exec fixture";
    // What is said in `cmd` is no secret; only what is in the environment must not be seen.
    let check = check.replace(SECRET, "\"$(printf correct-horse; printf -- -4711)\"");
    let body = json!({ "cmd": ["bash", "-c", check], "environment": { "API_KEY": SECRET } });
    let id = host(&server.api, body).await?;
    ensure!(text(&server.api, "count", json!({})).await? == "1");

    let mut places = Vec::new();
    for path in ["", "/fixture", "/fixture/logs"] {
        places.push((format!("GET {path}"), server.api.get(&format!("{SERVERS}{path}")).await?.success()?.to_string()));
    }
    ensure!(places[1].1.contains("<redacted>"), "{}", places[1].1);
    let inspected = Command::new("docker").args(["inspect", &format!("emergent-{id}")]).output().context("docker")?;
    places.push(("docker inspect".to_owned(), String::from_utf8_lossy(&inspected.stdout).into_owned()));
    for entry in walk(&server.data_dir())? {
        places.push((entry.clone(), String::from_utf8_lossy(&std::fs::read(&entry)?).into_owned()));
    }
    ensure!(places.iter().any(|(place, _)| place.ends_with("secret-key")), "no key in the data directory");
    for (place, text) in places {
        ensure!(!text.contains(SECRET), "the secret is in {place}");
    }
    Ok(())
}

fn walk(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let files = entries.into_iter().filter(|entry| entry.path().is_file());
    Ok(files.map(|entry| entry.path().display().to_string()).collect())
}
