//! The git tool, on the machine's own git.

use emergent_guest_proto::{
    ErrorCode,
    tools::{BashResult, GitResult},
};
use serde_json::{Value, json};

use crate::support::{Client, Guest, code};

async fn git(client: &Client, body: Value) -> GitResult {
    client.tool("git", body).await.unwrap()
}

/// A guest with an empty repository, or `None` where the test cannot run.
async fn repository() -> Option<(Guest, Client)> {
    let guest = Guest::start().await?;
    let client = guest.client().await;
    let made: BashResult = client.tool("bash", json!({"command": "git init -q -b main"})).await.unwrap();
    if made.exit_code == Some(127) {
        eprintln!("skipped: this machine has no git");
        return None;
    }
    assert_eq!(made.exit_code, Some(0), "{made:?}");
    Some((guest, client))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_change_goes_from_status_to_diff_to_commit_to_log() {
    let Some((guest, client)) = repository().await else { return };
    assert_eq!(git(&client, json!({"action": "log"})).await, GitResult::Log { commits: Vec::new() });
    guest.put("a file", "one\n");
    guest.put("other", "x\n");
    let GitResult::Status { branch, commit, clean, files, .. } = git(&client, json!({"action": "status"})).await else {
        panic!()
    };
    assert_eq!((branch.as_deref(), commit, clean), (Some("main"), None, false));
    assert_eq!(files.iter().map(|file| file.path.to_string()).collect::<Vec<_>>(), ["a file", "other"]);
    let body = json!({"action": "commit", "message": "-first\n\nwhy", "files": ["a file"]});
    let GitResult::Commit { commit: first, .. } = git(&client, body).await else { panic!() };
    let GitResult::Log { commits } = git(&client, json!({"action": "log"})).await else { panic!() };
    let [only] = commits.as_slice() else { panic!("{commits:?}") };
    assert_eq!((&only.commit, only.subject.as_str(), only.body.as_str()), (&first, "-first", "why"));
    assert_eq!(
        (only.author_name.as_str(), only.author_email.as_str()),
        ("Emergent Workspaces Bot", "bot@emergent.local")
    );
    guest.put("a file", "two\n");
    let GitResult::Diff { diff, truncated } = git(&client, json!({"action": "diff"})).await else { panic!() };
    assert!(diff.contains("-one\n+two\n") && !truncated, "{diff}");
    let GitResult::Status { files, .. } = git(&client, json!({"action": "status"})).await else { panic!() };
    let shown: Vec<_> = files.iter().map(|file| (file.status.as_str(), file.path.to_string())).collect();
    assert_eq!(shown, [(".M", "a file".to_owned()), ("??", "other".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_configured_identity_is_used() {
    let Some((guest, client)) = repository().await else { return };
    client.sh("git config user.name Ada; git config user.email ada@example.org").await;
    guest.put("a", "");
    git(&client, json!({"action": "commit", "message": "x"})).await;
    let GitResult::Log { commits } = git(&client, json!({"action": "log", "reference": "main"})).await else {
        panic!()
    };
    assert_eq!((commits[0].author_name.as_str(), commits[0].author_email.as_str()), ("Ada", "ada@example.org"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn branches_are_made_listed_and_switched() {
    let Some((guest, client)) = repository().await else { return };
    guest.put("a", "");
    git(&client, json!({"action": "commit", "message": "x"})).await;
    git(&client, json!({"action": "branch", "name": "side"})).await;
    let GitResult::Checkout { branch, commit } =
        git(&client, json!({"action": "checkout", "reference": "new", "create": true})).await
    else {
        panic!()
    };
    assert_eq!(branch.as_deref(), Some("new"));
    let listed = git(&client, json!({"action": "branch"})).await;
    let branches = ["main", "new", "side"].map(str::to_owned).to_vec();
    assert_eq!(listed, GitResult::Branch { current: Some("new".into()), branches });
    let detached = git(&client, json!({"action": "checkout", "reference": commit.clone().unwrap()})).await;
    assert_eq!(detached, GitResult::Checkout { branch: None, commit });
    let missing = client.tool::<Value>("git", json!({"action": "checkout", "reference": "nope"})).await.unwrap_err();
    assert!(missing.code == ErrorCode::GitFailed && missing.message.contains("nope"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn work_is_pushed_to_and_pulled_from_a_remote() {
    let Some((guest, client)) = repository().await else { return };
    client.sh("git init -q --bare -b main ../workspace/remote.git; git remote add origin $PWD/remote.git; echo remote.git > .git/info/exclude").await;
    guest.put("a", "one\n");
    git(&client, json!({"action": "commit", "message": "x"})).await;
    git(&client, json!({"action": "push"})).await;
    client.sh("git clone -q remote.git .git/clone").await;
    guest.put(".git/clone/a", "two\n");
    let other = json!({"path": ".git/clone", "action": "commit", "message": "y"});
    let GitResult::Commit { commit: newest, .. } = git(&client, other).await else { panic!() };
    git(&client, json!({"path": ".git/clone", "action": "push", "branch": "main"})).await;
    let GitResult::Pull { commit, .. } = git(&client, json!({"action": "pull"})).await else { panic!() };
    assert_eq!(commit, newest);
    let GitResult::Status { upstream, ahead, behind, clean, .. } = git(&client, json!({"action": "status"})).await
    else {
        panic!()
    };
    assert_eq!((upstream.as_deref(), ahead, behind, clean), (Some("origin/main"), 0, 0, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn gits_refusals_are_gits_own_words_without_credentials() {
    let Some((guest, client)) = repository().await else { return };
    client.sh("git remote add origin https://ada:s3cret@127.0.0.1:1/x.git").await;
    guest.put("a", "");
    git(&client, json!({"action": "commit", "message": "x"})).await;
    let refused = client.tool::<Value>("git", json!({"action": "push"})).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::GitFailed);
    assert!(!refused.message.contains("s3cret") && refused.message.contains("127.0.0.1"), "{refused:?}");
    let nothing = client.tool::<Value>("git", json!({"action": "commit", "message": "y"})).await.unwrap_err();
    assert!(nothing.message.contains("nothing to commit"), "{nothing:?}");
    let nowhere = client.tool::<Value>("git", json!({"action": "status", "path": "nope"})).await.unwrap_err();
    assert_eq!((nowhere.code, nowhere.field.as_deref()), (ErrorCode::NotFound, Some("path")));
    guest.put("plain/x", "");
    let fields = json!({"action": "status", "path": "/"});
    assert_eq!(code(client.tool::<Value>("git", fields).await), ErrorCode::GitFailed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_huge_diff_is_cut() {
    let Some((guest, client)) = repository().await else { return };
    guest.put("a", "");
    git(&client, json!({"action": "commit", "message": "x"})).await;
    guest.put("a", "line\n".repeat(1_000_000));
    let GitResult::Diff { diff, truncated } = git(&client, json!({"action": "diff"})).await else { panic!() };
    assert_eq!((diff.len(), truncated), (50_000, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_status_answers_is_what_commit_takes() {
    let Some((guest, client)) = repository().await else { return };
    guest.put("sub/a", "");
    guest.put("sub/beside", "");
    guest.put("top", "");
    client.sh(r"touch -- sub/$'caf\xe9' '-odd *'").await;
    let files = |status: GitResult| {
        let GitResult::Status { files, .. } = status else { panic!() };
        files.into_iter().map(|file| file.path.to_string()).collect::<Vec<_>>()
    };
    let there = files(git(&client, json!({"path": "sub", "action": "status"})).await);
    assert_eq!(there, ["-odd *", "sub/a", "sub/beside", r"$'sub/caf\xe9'", "top"]);
    let without = |left_out: &str| there.iter().filter(|name| !name.ends_with(left_out)).collect::<Vec<_>>();
    let commit = json!({"path": "sub", "action": "commit", "message": "x", "files": without("beside")});
    git(&client, commit).await;
    assert_eq!(files(git(&client, json!({"action": "status"})).await), ["sub/beside"]);
    // As people name it who are in the directory.
    git(&client, json!({"path": "sub", "action": "commit", "message": "y", "files": ["beside"]})).await;
    assert!(files(git(&client, json!({"action": "status"})).await).is_empty());
    let absent = json!({"path": "sub", "action": "commit", "message": "z", "files": ["absent"]});
    assert!(client.tool::<Value>("git", absent).await.unwrap_err().message.contains("absent"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_branch_may_be_named_like_no_branch() {
    let Some((guest, client)) = repository().await else { return };
    guest.put("a", "");
    git(&client, json!({"action": "commit", "message": "x"})).await;
    git(&client, json!({"action": "checkout", "reference": "(detached)", "create": true})).await;
    let branch = |status| match status {
        GitResult::Status { branch, .. } => branch,
        other => panic!("{other:?}"),
    };
    assert_eq!(branch(git(&client, json!({"action": "status"})).await).as_deref(), Some("(detached)"));
    client.sh("git checkout -q --detach").await;
    assert_eq!(branch(git(&client, json!({"action": "status"})).await), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn refusals_that_git_does_not_explain_are_explained() {
    let Some((guest, client)) = repository().await else { return };
    guest.put("a", "");
    client.sh("printf '#!/bin/sh\\nexit 1\\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit").await;
    let commit = json!({"action": "commit", "message": "x"});
    let refused = client.tool::<Value>("git", commit.clone()).await.unwrap_err();
    assert!(refused.message.contains("hook") && refused.message.contains("pre-commit"), "{refused:?}");
    client.sh("rm .git/hooks/pre-commit").await;
    let chown = std::process::Command::new("chown").args(["-R", "0:0"]).arg(guest.workspace().join(".git")).status();
    assert!(chown.unwrap().success());
    let refused = client.tool::<Value>("git", commit).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::GitFailed);
    assert!(refused.message.contains("another user") && refused.message.contains("chown"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn commands_commit_as_the_tool_does_unless_somebody_says_who_commits() {
    let Some((_guest, client)) = repository().await else { return };
    let last = "git commit -q --allow-empty -m x && git log -1 --format='%an <%ae> %cn'";
    assert_eq!(client.sh(last).await, "Emergent Workspaces Bot <bot@emergent.local> Emergent Workspaces Bot\n");
    client.sh("git config user.name Ada; git config user.email ada@example.org").await;
    assert_eq!(client.sh(last).await, "Ada <ada@example.org> Ada\n");
    assert_eq!(client.sh(&format!("export GIT_AUTHOR_NAME=Bob; {last}")).await, "Bob <ada@example.org> Ada\n");
}
