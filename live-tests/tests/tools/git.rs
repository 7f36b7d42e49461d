//! Git, by its actions.

use anyhow::ensure;
use emergent_live_tests::{Case, Runtime};
use serde_json::json;

use crate::subject::Subject;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("git_is_structured", git_is_structured),
        Case::new("commits_go_to_another_repository_and_come_from_it", there_and_back),
    ]
}

async fn git_is_structured(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let git = |body| subject.tool("git", body);
    subject.bash("git init -q -b main . && echo one > a").await?;
    let status = git(json!({ "action": "status" })).await?.success()?;
    ensure!(status["branch"] == "main" && status["files"][0]["path"] == "a", "{status}");
    let commit = git(json!({ "action": "commit", "message": "first" })).await?.success()?;
    ensure!(commit["commit"].as_str().is_some_and(|commit| commit.len() == 40), "{commit}");
    git(json!({ "action": "checkout", "reference": "topic", "create": true })).await?.success()?;
    subject.bash("echo two >> a").await?;
    let diff = git(json!({ "action": "diff" })).await?.success()?;
    ensure!(diff["diff"].as_str().is_some_and(|diff| diff.contains("+two")), "{diff}");
    let log = git(json!({ "action": "log" })).await?.success()?;
    ensure!(log["commits"][0]["subject"] == "first", "{log}");
    let branches = git(json!({ "action": "branch" })).await?.success()?;
    ensure!(branches["current"] == "topic" && branches["branches"] == json!(["main", "topic"]), "{branches}");
    git(json!({ "action": "checkout", "reference": "--orphan" })).await?.refusal(400)?;
    let unknown = git(json!({ "action": "status", "colour": "red" })).await?;
    ensure!(unknown.status.is_client_error() && unknown.body.to_string().contains("colour"), "{unknown:?}");
    Ok(())
}

async fn there_and_back(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let make = "git init -q --bare -b main /tmp/there && git clone -q /tmp/there one 2>/dev/null && \
                cd one && git checkout -q -b main && echo one > a";
    subject.bash(make).await?;
    let git = |body| subject.tool("git", body);
    git(json!({ "action": "commit", "message": "first", "path": "one" })).await?.success()?;
    git(json!({ "action": "push", "path": "one", "branch": "main" })).await?.success()?;
    subject.bash("git clone -q /tmp/there two && cd one && echo two > a").await?;
    git(json!({ "action": "commit", "message": "second", "path": "one" })).await?.success()?;
    git(json!({ "action": "push", "path": "one" })).await?.success()?;
    git(json!({ "action": "pull", "path": "two" })).await?.success()?;
    ensure!(subject.bash("cat two/a").await? == "two\n");
    let log = git(json!({ "action": "log", "path": "two", "limit": 1 })).await?.success()?;
    ensure!(log["commits"][0]["subject"] == "second", "{log}");
    Ok(())
}
