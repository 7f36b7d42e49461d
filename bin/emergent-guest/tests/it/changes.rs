//! Changes of files: parallel ones are all kept, and a file keeps its properties.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
    process::Command,
};

use emergent_guest_proto::{
    ErrorCode,
    files::{FileInfo, FileKind},
    tools::{EditResult, ReadResult, WriteResult},
};
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Client, Guest, code};

/// Parallel edits of a file.
const EDITS: usize = 20;

async fn edit(
    client: &Client,
    path: &str,
    old: &str,
    new: &str,
) -> Result<EditResult, emergent_guest_proto::GuestError> {
    client.tool("edit", json!({"file_path": path, "old_string": old, "new_string": new})).await
}

fn lines() -> String {
    (0..EDITS).map(|number| format!("line {number};\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_changes_stay_as_edits_succeed() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let path = guest.put("d/f", lines());
    symlink("d", guest.workspace().join("e")).unwrap();
    symlink("e/f", guest.workspace().join("link")).unwrap();
    fs::hard_link(guest.put("one", lines()), guest.workspace().join("other")).unwrap();
    for (names, file) in
        [(["d/f", "link", "e/../e/f"], path), (["one", "other", "./one"], guest.workspace().join("one"))]
    {
        for round in 0..10 {
            fs::write(&file, lines()).unwrap();
            let edits = (0..EDITS).map(|number| {
                let (client, name) = (&client, names[number % names.len()]);
                async move { edit(client, name, &format!("line {number};"), &format!("edited {number};")).await }
            });
            for edited in join_all(edits).await {
                edited.unwrap();
            }
            let text = fs::read_to_string(&file).unwrap();
            assert_eq!(text.matches("edited").count(), EDITS, "round {round} of {names:?}: {text}");
        }
    }
    assert_eq!(fs::metadata(guest.workspace().join("one")).unwrap().nlink(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_uploads_moves_and_edits_of_a_file_come_one_after_another() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    for _ in 0..20 {
        guest.put("f", "a text\n");
        let edited = edit(&client, "f", "a text", "an edited text");
        let body = json!({"from": "f", "to": "g"});
        let moved = client.post::<FileInfo>("/v1/files/move", &body);
        let (edited, moved) = tokio::join!(edited, moved);
        assert!(moved.is_ok(), "{moved:?}");
        let text = fs::read_to_string(guest.workspace().join("g")).unwrap();
        match edited {
            Ok(_) => assert_eq!(text, "an edited text\n"),
            Err(error) => assert_eq!((error.code, text.as_str()), (ErrorCode::NotFound, "a text\n")),
        }
        assert!(!guest.workspace().join("f").exists(), "the edit has brought it back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_is_replaced_only_if_it_holds_what_is_expected() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let path = guest.put("f", "one\n");
    let ReadResult::Text { sha256: Some(read), .. } = client.tool("read", json!({"file_path": "f"})).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(client.sh("sha256sum f").await.split_whitespace().next(), Some(read.to_string().as_str()));
    let write = |content: &str, expected: String| {
        client.tool::<WriteResult>("write", json!({"file_path": "f", "content": content, "expected_sha256": expected}))
    };
    let upload = |expected: String| {
        let path = format!("/v1/files/content?path=f&expected_sha256={expected}");
        let client = client.clone();
        async move { client.call::<FileInfo>(Method::PUT, &path, "uploaded\n").await }
    };
    let two = write("two\n", read.to_string()).await.unwrap().sha256.unwrap();
    for refused in [write("three\n", read.to_string()).await.unwrap_err(), upload(read.to_string()).await.unwrap_err()]
    {
        assert_eq!((refused.code, refused.code.status()), (ErrorCode::ContentChanged, 412));
        assert!(refused.message.contains(&two.to_string()), "{refused:?}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    let edited = edit(&client, "f", "two", "2").await.unwrap().sha256.unwrap();
    upload(edited.to_string()).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "uploaded\n");
    fs::remove_file(&path).unwrap();
    assert_eq!(code(write("four\n", two.to_string()).await), ErrorCode::ContentChanged);
    assert!(!path.exists());
    let malformed = client
        .tool::<Value>("write", json!({"file_path": "f", "content": "", "expected_sha256": "abc"}))
        .await
        .unwrap_err();
    assert_eq!(malformed.field.as_deref(), Some("expected_sha256"));
    assert_eq!(client.sh("ls -A").await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_file_is_besides_its_contents_stays() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let workspace = guest.workspace();
    // Two names, somebody else's, and one of a group that the agent has not.
    fs::hard_link(guest.put("one", "text"), workspace.join("other")).unwrap();
    let roots = guest.put("roots", "text");
    chown(&roots, Some(0), Some(0)).unwrap();
    fs::set_permissions(&roots, Permissions::from_mode(0o666)).unwrap();
    let group = guest.put("group", "text");
    chown(&group, Some(1000), Some(4321)).unwrap();
    fs::set_permissions(&group, Permissions::from_mode(0o664)).unwrap();
    let attributed = guest.put("attributed", "text");
    let has_attributes = Command::new("setfattr").args(["-n", "user.colour", "-v", "red"]).arg(&attributed).status();
    let has_attributes = has_attributes.is_ok_and(|status| status.success());
    let what = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.nlink(), metadata.uid(), metadata.gid(), metadata.mode())
    };
    for name in ["one", "roots", "group", "attributed"] {
        let path = workspace.join(name);
        let before = what(&path);
        for (round, text) in
            ["a longer text", "short", "even longer than the text that was the longest"].iter().enumerate()
        {
            match round {
                0 => drop(edit(&client, name, "text", text).await.unwrap()),
                1 => drop(
                    client.tool::<WriteResult>("write", json!({"file_path": name, "content": text})).await.unwrap(),
                ),
                _ => {
                    let uri = format!("/v1/files/content?path={name}");
                    let info: FileInfo = client.call(Method::PUT, &uri, text.as_bytes()).await.unwrap();
                    assert_eq!(info.size, text.len() as u64);
                }
            }
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), what(&path)), (*text, before), "{name} {round}");
        }
    }
    assert_eq!(fs::read(workspace.join("one")).unwrap(), fs::read(workspace.join("other")).unwrap());
    if has_attributes {
        let shown = Command::new("getfattr").args(["--only-values", "-n", "user.colour"]).arg(&attributed).output();
        assert_eq!(shown.unwrap().stdout, b"red");
    }
    let modes = client.call::<FileInfo>(Method::PUT, "/v1/files/content?path=one&mode=448", "x").await.unwrap();
    assert_eq!((modes.mode, fs::metadata(workspace.join("other")).unwrap().nlink()), (0o700, 2));
    assert_eq!(client.sh("ls -A | sort | tr '\\n' ' '").await, "attributed group one other roots ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upload_through_a_link_tells_of_the_file() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put("d/f", "x");
    symlink("d/f", guest.workspace().join("link")).unwrap();
    let info: FileInfo = client.call(Method::PUT, "/v1/files/content?path=link", "12345").await.unwrap();
    assert_eq!((info.kind, info.size), (FileKind::File, 5));
    assert!(info.path.as_path().ends_with("d/f"), "{info:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_disk_leaves_a_file_that_can_only_be_written_into_as_it_was() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let small = guest.workspace().join("small");
    fs::create_dir(&small).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0777", "tmpfs"]).arg(&small).status();
    if !mount.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no file system can be mounted here");
    }
    let old = "old contents\n".repeat(1_000);
    let path = guest.put("small/f", &old);
    fs::set_permissions(&small, Permissions::from_mode(0o755)).unwrap();
    let write =
        |content: String| client.tool::<WriteResult>("write", json!({"file_path": "small/f", "content": content}));
    let refused = write("x".repeat(2 << 20)).await;
    let left = fs::read_to_string(&path).unwrap();
    let small_enough = write("y".repeat(500_000)).await.map(|written| written.created);
    let written = fs::metadata(&path).unwrap().len();
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    assert_eq!(code(refused), ErrorCode::DiskFull);
    assert!(left == old, "{} bytes are left of {}", left.len(), old.len());
    assert_eq!((small_enough, written), (Ok(false), 500_000));
}
