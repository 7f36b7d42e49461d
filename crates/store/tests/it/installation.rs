//! What a store makes of itself, once.

use std::{fs, os::unix::fs::PermissionsExt as _};

use emergent_store::{DatabaseUrl, Store};

use crate::support::TestStore;

#[tokio::test]
async fn an_installation_keeps_its_identity_and_rows_when_it_is_opened_again() {
    let first = TestStore::open().await;
    let row = first.admitted(first.new_row()).await;
    let again = Store::open(&first.url).await.unwrap();
    assert_eq!(again.server_id(), first.server_id());
    assert_eq!(again.default_project(), first.default_project());
    assert_eq!(again.workspaces_find(row.id).await.unwrap(), Some(row));
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let store = TestStore::open().await;
    store.admitted(store.new_row()).await;
    let files = fs::read_dir(store.directory.path().join("deep/er")).unwrap();
    let modes = files.map(|file| file.unwrap().metadata().unwrap().permissions().mode() & 0o777).collect::<Vec<_>>();
    assert!(!modes.is_empty() && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let notes = "not a database, and long enough to be looked at as one".repeat(40);
    fs::write(&path, &notes).unwrap();
    assert!(Store::open(&DatabaseUrl::sqlite(&path)).await.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), notes);
}

#[tokio::test]
async fn a_store_answers_a_ping() {
    TestStore::open().await.ping().await.unwrap();
}

#[test]
fn a_url_names_an_absolute_file() {
    assert_eq!("sqlite:///var/lib/x.db".parse::<DatabaseUrl>().unwrap().to_string(), "sqlite:///var/lib/x.db");
    for wrong in ["", "sqlite:", "sqlite://x.db", "sqlite:///", "postgres://user:secret@host/db"] {
        let error = wrong.parse::<DatabaseUrl>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
