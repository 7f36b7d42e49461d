//! Finding files by their names, and by their contents.

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime};
use serde_json::json;

use crate::subject::Subject;

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("files_are_found", files_are_found)]
}

async fn files_are_found(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let make = "git init -q . && mkdir -p a/b build && echo needle > a/b/x.rs && echo needle > build/y.rs && \
        echo build/ > .gitignore && touch -d 2020-01-01 a/b/x.rs && echo 'no thing' > a/z.txt && \
        echo needle > $'caf\\xe9.rs'";
    subject.bash(make).await?;
    let found = subject.tool("glob", json!({ "pattern": "**/*.rs" })).await?.success()?;
    let files = found["files"].as_array().context("no files")?;
    ensure!(files.last().is_some_and(|last| last == "/workspace/a/b/x.rs"), "the oldest is not last: {found}");
    ensure!(files.iter().any(|file| file == r"$'/workspace/caf\xe9.rs'"), "{found}");
    let none = subject.tool("glob", json!({ "pattern": "*.nothing" })).await?.success()?;
    ensure!(none["files"] == json!([]), "{none}");

    let grep = subject.tool("grep", json!({ "pattern": "need.e", "include": "*.rs" })).await?.success()?;
    let matches = grep["matches"].as_array().context("no matches")?;
    ensure!(matches.len() == 2 && matches.iter().all(|found| found["line"] == "needle"), "{grep}");
    let all = subject.tool("grep", json!({ "pattern": "needle", "no_ignore": true })).await?.success()?;
    ensure!(all["matches"].as_array().is_some_and(|matches| matches.len() == 3), "{all}");
    let within = json!({ "pattern": "NO", "ignore_case": true, "path": "a", "limit": 1 });
    let within = subject.tool("grep", within).await?.success()?;
    ensure!(within["matches"][0]["file_path"] == "/workspace/a/z.txt", "{within}");
    ensure!(within["matches"][0]["line_number"] == 1, "{within}");
    subject.tool("grep", json!({ "pattern": "(" })).await?.refusal(400)?;
    Ok(())
}
