//! Glob and grep.

use std::time::{Duration, SystemTime};

use emergent_guest_proto::tools::{GlobResult, GrepResult};
use serde_json::json;

use crate::support::{Client, Guest, eventually};

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
    assert_eq!(glob(&client, &guest, "*.rs").await, ["src/a.rs", "src/deep/b.rs", "top.rs", ".hidden.rs"]);
    assert_eq!(glob(&client, &guest, "src/*.rs").await, ["src/a.rs"]);
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
async fn what_is_named_is_searched_and_what_is_left_out_is_counted() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put(".gitignore", "dist/\nnode_modules\n*.log\nbuild/*\n");
    for name in [
        ".github/workflows/a.yml",
        "dist/b.yml",
        "dist/deep/c.yml",
        "node_modules/p/d.js",
        "e.log",
        "build/f.txt",
        "g.yml",
        "sub/h.yml",
        "sub/.hidden/i.yml",
    ] {
        guest.put(name, "needle\n");
    }
    let grep = |body: serde_json::Value| {
        let mut whole = json!({"pattern": "needle"});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let (client, guest) = (&client, &guest);
        async move {
            let found: GrepResult = client.tool("grep", whole).await.unwrap();
            let name = |path: &std::path::Path| path.strip_prefix(guest.workspace()).unwrap().display().to_string();
            let names: Vec<_> = found.matches.iter().map(|found| name(found.file_path.as_path())).collect();
            (names.join(" "), found.left_out)
        }
    };
    // dist, node_modules, e.log, build/f.txt, .github, sub/.hidden, .gitignore
    assert_eq!(grep(json!({})).await, ("g.yml sub/h.yml".into(), 7));
    assert_eq!(grep(json!({"include": "*.yml"})).await.0, "g.yml sub/h.yml");
    assert_eq!(grep(json!({"include": ".github/workflows/*.yml"})).await.0, ".github/workflows/a.yml");
    assert_eq!(grep(json!({"include": "./dist/*.yml"})).await.0, "dist/b.yml");
    assert_eq!(grep(json!({"include": "dist/**"})).await.0, "dist/b.yml dist/deep/c.yml");
    assert_eq!(grep(json!({"include": "*.log"})).await.0, "e.log");
    assert_eq!(grep(json!({"path": "node_modules"})).await, ("node_modules/p/d.js".into(), 0));
    assert_eq!(grep(json!({"path": "node_modules/p"})).await, ("node_modules/p/d.js".into(), 0));
    assert_eq!(grep(json!({"path": "dist", "include": "deep/*"})).await.0, "dist/deep/c.yml");
    assert_eq!(grep(json!({"path": "build"})).await, ("".into(), 1), "it says that something was left out");
    assert_eq!(grep(json!({"no_ignore": true})).await.1, 0);
    // The same patterns find the same files by name.
    for (pattern, found) in [("*.log", "e.log"), ("dist/*.yml", "dist/b.yml"), ("**/d.js", "node_modules/p/d.js")] {
        assert_eq!(glob(&client, &guest, pattern).await.join(" "), found);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rules_count_as_they_do_for_git() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put(".gitignore", "*.txt\n!kept.txt\n/top\n");
    guest.put(".ignore", "by-ignore\n");
    guest.put("inner/.gitignore", "!b.txt\n");
    guest.put("repository/.git/info/exclude", "excluded\n");
    for name in [
        "a.txt",
        "kept.txt",
        "top",
        "inner/b.txt",
        "inner/c.txt",
        "inner/top",
        "by-ignore",
        "repository/excluded",
        "repository/in-a-repository.txt",
    ] {
        guest.put(name, "needle\n");
    }
    let names = |found: Vec<String>| {
        found.iter().map(|found| found.split(':').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let found = grep(&client, &guest, json!({"pattern": "needle"})).await;
    assert_eq!(names(found), "inner/b.txt inner/top kept.txt repository/in-a-repository.txt");
    let found = grep(&client, &guest, json!({"pattern": "needle", "path": "inner"})).await;
    assert_eq!(names(found), "inner/b.txt inner/top");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_line_shows_its_match() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put("f", format!("{}needle{}\nshort needle\n", "x".repeat(100_000), "y".repeat(100_000)));
    let found: GrepResult = client.tool("grep", json!({"pattern": "needle"})).await.unwrap();
    let [long, short] = found.matches.as_slice() else { panic!("{found:?}") };
    assert!(long.line.contains("xxneedleyy") && long.line.len() < 3_000 && long.truncated && found.truncated);
    assert_eq!((short.line.as_str(), short.truncated), ("short needle", false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_neither_hold_commands_up_nor_outlive_their_callers() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    // Nothing is found in it, however long that takes.
    let large = std::fs::File::create(guest.workspace().join("large")).unwrap();
    large.set_len(40 << 30).unwrap();
    drop(large);
    guest.put("f", "text\n");
    let searches: Vec<_> = (0..60)
        .map(|_| {
            let client = client.clone();
            let body = json!({"pattern": "needle[0-9]+z", "path": "large"});
            tokio::spawn(async move { client.tool::<GrepResult>("grep", body).await })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(client.sh("echo fine").await, "fine\n");
    }
    client.tool::<emergent_guest_proto::tools::ReadResult>("read", json!({"file_path": "f"})).await.unwrap();
    for search in &searches {
        search.abort();
    }
    let busy = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/fd", guest.child.id())).unwrap();
        let open = tasks.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let none = open.filter(|path| path.ends_with("large")).count() == 0;
        std::future::ready(none.then_some(()))
    };
    eventually("no search is left", busy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pipe_or_a_loop_of_links_does_not_catch_a_search() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.sh("mkfifo pipe; ln -s loop loop; ln -s . self; echo needle > file").await;
    assert_eq!(grep(&client, &guest, json!({"pattern": "needle", "no_ignore": true})).await, ["file:1:needle"]);
    assert_eq!(glob(&client, &guest, "**/file").await, ["file"]);
}
