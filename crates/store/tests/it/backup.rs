//! Copies of a SQLite database.

use std::os::unix::fs::PermissionsExt as _;

use emergent_store::{BackupError, DatabaseUrl, Store, backup};

#[tokio::test]
async fn a_copy_made_while_rows_come_is_whole_and_private() {
    let directory = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::sqlite(directory.path().join("rows.db"));
    let store = Store::open(&url).await.unwrap();
    let before = store.projects_ensure("before").await.unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for turn in 0..200 {
                store.projects_ensure(&format!("project {turn}")).await.unwrap();
            }
        }
    });
    let copy = directory.path().join("copy.db");
    backup(&url, &copy).await.unwrap();
    writing.await.unwrap();
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let copied = Store::open(&DatabaseUrl::sqlite(&copy)).await.unwrap();
    assert_eq!(copied.server_id(), store.server_id());
    assert_eq!(copied.projects_ensure("before").await.unwrap(), before);
}

#[tokio::test]
async fn a_copy_never_replaces_a_file_and_says_what_to_use_for_postgresql() {
    let directory = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::sqlite(directory.path().join("rows.db"));
    Store::open(&url).await.unwrap();
    let there = directory.path().join("there");
    std::fs::write(&there, "kept").unwrap();
    assert!(matches!(backup(&url, &there).await, Err(BackupError::Destination { .. })));
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "kept");
    let postgres = "postgres://me:hush@host/db".parse().unwrap();
    let error = backup(&postgres, &directory.path().join("new")).await.unwrap_err().to_string();
    assert!(error.contains("pg_dump") && !error.contains("hush"), "{error}");
}
