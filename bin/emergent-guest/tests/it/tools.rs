//! Read, write and edit.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use emergent_guest_proto::{
    ErrorCode,
    tools::{EditResult, ReadResult, WriteResult},
};
use serde_json::{Value, json};

use crate::support::{Guest, code};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_text_is_shown_with_numbered_lines() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put("a.txt", "one\ntwo\nthree\n");
    let ReadResult::Text { content, total_lines, size, truncated, .. } =
        client.tool("read", json!({"file_path": "a.txt"})).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(content, "1: one\n2: two\n3: three");
    assert_eq!((total_lines, size, truncated), (Some(3), 14, false));
    let ReadResult::Text { content, first_line, lines, truncated, .. } =
        client.tool("read", json!({"file_path": "a.txt", "offset": 2, "limit": 1})).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((content.as_str(), first_line, lines, truncated), ("2: two", 2, 1, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_directory_shows_its_names_and_a_binary_its_kind() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put("d/sub/x", "");
    guest.put("d/b", "");
    let listing: ReadResult = client.tool("read", json!({"file_path": "d"})).await.unwrap();
    assert_eq!(listing, ReadResult::Directory { content: "b\nsub/".into(), entries: 2, truncated: false });
    guest.put("picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    let picture: ReadResult = client.tool("read", json!({"file_path": "picture"})).await.unwrap();
    assert_eq!(picture, ReadResult::Binary { size: 16, mime_type: "image/png".into() });
    assert_eq!(code(client.tool::<Value>("read", json!({"file_path": "nope"})).await), ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn writing_makes_parents_and_keeps_permissions_and_links() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let new: WriteResult = client.tool("write", json!({"file_path": "a/b/c", "content": "hé"})).await.unwrap();
    assert!(new.created && new.bytes_written == 3);
    let path = guest.workspace().join("a/b/c");
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1000, 1000, 0o644));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a/b/c", guest.workspace().join("link")).unwrap();
    let again: WriteResult = client.tool("write", json!({"file_path": "link", "content": "new"})).await.unwrap();
    assert!(!again.created);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    assert!(std::fs::symlink_metadata(guest.workspace().join("link")).unwrap().is_symlink());
    symlink("fresh", guest.workspace().join("dangling")).unwrap();
    client.tool::<WriteResult>("write", json!({"file_path": "dangling", "content": "x"})).await.unwrap();
    assert_eq!(std::fs::read_to_string(guest.workspace().join("fresh")).unwrap(), "x");
    assert_eq!(client.sh("find . -name '.emergent*'").await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn file_tools_have_the_agents_rights_and_no_more() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let secret = guest.put("secret", "root's");
    std::os::unix::fs::chown(&secret, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let closed = guest.put("closed/inside", "x").parent().unwrap().to_owned();
    std::os::unix::fs::chown(&closed, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let groups = guest.put("of-group-0", "secret");
    std::os::unix::fs::chown(&groups, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&groups, std::fs::Permissions::from_mode(0o660)).unwrap();
    for (tool, body) in [
        ("read", json!({"file_path": "of-group-0"})),
        ("write", json!({"file_path": "of-group-0", "content": ""})),
        ("grep", json!({"pattern": "x", "path": "of-group-0"})),
        ("read", json!({"file_path": "secret"})),
        ("write", json!({"file_path": "secret", "content": ""})),
        ("edit", json!({"file_path": "secret", "old_string": "a", "new_string": "b"})),
        ("read", json!({"file_path": "closed/inside"})),
        ("write", json!({"file_path": "/etc/emergent-test", "content": ""})),
        ("glob", json!({"pattern": "*", "path": "closed"})),
        ("grep", json!({"pattern": "x", "path": "closed"})),
        ("grep", json!({"pattern": "x", "path": "secret"})),
    ] {
        assert_eq!(code(client.tool::<Value>(tool, body.clone()).await), ErrorCode::PermissionDenied, "{tool} {body}");
    }
    // And the guest's own threads have kept root's.
    assert_eq!(client.sh("echo fine").await, "fine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_edit_replaces_exactly_or_changes_nothing() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let path = guest.put("f", "a\r\nb\r\na\r\n");
    let edit = |old: &str, new: &str, all: bool| {
        client.tool::<EditResult>(
            "edit",
            json!({"file_path": "f", "old_string": old, "new_string": new, "replace_all": all}),
        )
    };
    assert_eq!(edit("nope", "x", false).await.unwrap_err().code, ErrorCode::StringNotFound);
    assert_eq!(edit("a", "x", false).await.unwrap_err().code, ErrorCode::SeveralMatches);
    assert_eq!(edit("", "x", false).await.unwrap_err().field.as_deref(), Some("old_string"));
    assert_eq!(edit("a\nc", "x", false).await.unwrap_err().code, ErrorCode::StringNotFound);
    assert_eq!(std::fs::read(&path).unwrap(), b"a\r\nb\r\na\r\n");
    let done = edit("a", "x", true).await.unwrap();
    assert_eq!((done.replacements, done.lines_changed), (2, 2));
    assert_eq!(std::fs::read(&path).unwrap(), b"x\r\nb\r\nx\r\n");
    guest.put("binary", "a\0b");
    let binary = json!({"file_path": "binary", "old_string": "a", "new_string": "b"});
    assert_eq!(code(client.tool::<Value>("edit", binary).await), ErrorCode::BinaryFile);
    let large = guest.put("large", "");
    std::fs::File::options().write(true).open(large).unwrap().set_len(17 << 20).unwrap();
    let large = json!({"file_path": "large", "old_string": "a", "new_string": "b"});
    assert_eq!(code(client.tool::<Value>("edit", large).await), ErrorCode::TooLarge);
}
