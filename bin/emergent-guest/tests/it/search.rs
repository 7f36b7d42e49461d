//! Glob and grep.

use std::time::{Duration, SystemTime};

use emergent_guest_proto::tools::{GlobResult, GrepResult};
use serde_json::json;

use crate::support::{Client, Guest};

async fn glob(client: &Client, guest: &Guest, pattern: &str) -> Vec<String> {
    let found: GlobResult = client.tool("glob", json!({"pattern": pattern})).await.unwrap();
    assert!(!found.truncated);
    let workspace = guest.workspace();
    found
        .files
        .iter()
        .map(|file| file.as_path().strip_prefix(&workspace).unwrap().to_str().unwrap().to_owned())
        .collect()
}

async fn grep(client: &Client, guest: &Guest, body: serde_json::Value) -> Vec<String> {
    let found: GrepResult = client.tool("grep", body).await.unwrap();
    let workspace = guest.workspace();
    let shown = found.matches.iter().map(|found| {
        let path = found.file_path.as_path().strip_prefix(&workspace).unwrap();
        format!("{}:{}:{}", path.display(), found.line_number, found.line)
    });
    shown.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_glob_finds_files_newest_first() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    for (age, name) in ["src/a.rs", "src/deep/b.rs", "top.rs", ".hidden.rs", ".git/c.rs"].iter().enumerate() {
        let file = std::fs::File::options().write(true).open(guest.put(name, "")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age as u64 * 100)).unwrap();
    }
    assert_eq!(glob(&client, &guest, "**/*.rs").await, ["src/a.rs", "src/deep/b.rs", "top.rs", ".hidden.rs"]);
    assert_eq!(glob(&client, &guest, "*.rs").await, ["top.rs", ".hidden.rs"]);
    assert_eq!(glob(&client, &guest, "src/{a,deep/b}*.rs").await, ["src/a.rs", "src/deep/b.rs"]);
    assert_eq!(glob(&client, &guest, "*.py").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn more_files_than_an_answer_holds_are_said_to_be_there() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.sh("for i in $(seq 1100); do echo needle > f$i; done; touch -d '2030-01-01' f7").await;
    let found: GlobResult = client.tool("glob", json!({"pattern": "f*"})).await.unwrap();
    assert!(found.truncated && found.files.len() == 1_000);
    assert!(found.files[0].as_path().ends_with("f7"));
    let found: GrepResult = client.tool("grep", json!({"pattern": "needle"})).await.unwrap();
    assert!(found.truncated && found.matches.len() == 1_000);
    let found: GrepResult = client.tool("grep", json!({"pattern": "needle", "limit": 1100})).await.unwrap();
    assert!(!found.truncated && found.matches.len() == 1_100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn grep_finds_lines_sorted_and_leaves_out_what_ripgrep_does() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put("b.txt", "Needle one\nother\nneedle two\n");
    guest.put("a/x.rs", "a needle");
    guest.put(".gitignore", "ignored\n");
    guest.put("ignored", "needle");
    guest.put(".hidden", "needle");
    guest.put("binary", "needle\0");
    let found = grep(&client, &guest, json!({"pattern": "needle"})).await;
    assert_eq!(found, ["a/x.rs:1:a needle", "b.txt:3:needle two"]);
    let found = grep(&client, &guest, json!({"pattern": "^NEEDLE", "ignore_case": true})).await;
    assert_eq!(found, ["b.txt:1:Needle one", "b.txt:3:needle two"]);
    let found = grep(&client, &guest, json!({"pattern": "needle", "include": "*.rs"})).await;
    assert_eq!(found, ["a/x.rs:1:a needle"]);
    let found = grep(&client, &guest, json!({"pattern": "needle", "no_ignore": true})).await;
    assert_eq!(found, [".hidden:1:needle", "a/x.rs:1:a needle", "b.txt:3:needle two", "ignored:1:needle"]);
    let found = grep(&client, &guest, json!({"pattern": "needle", "path": "b.txt"})).await;
    assert_eq!(found, ["b.txt:3:needle two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pipe_or_a_loop_of_links_does_not_catch_a_search() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.sh("mkfifo pipe; ln -s loop loop; ln -s . self; echo needle > file").await;
    assert_eq!(grep(&client, &guest, json!({"pattern": "needle", "no_ignore": true})).await, ["file:1:needle"]);
    assert_eq!(glob(&client, &guest, "**/file").await, ["file"]);
}
