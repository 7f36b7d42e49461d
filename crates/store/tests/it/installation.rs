//! The identity and the files that a store makes once.

use std::{fs, os::unix::fs::PermissionsExt as _};

use emergent_store::{DatabaseUrl, Store};
use tokio::task::JoinSet;

use crate::support::{self, TestStore};

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
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&DatabaseUrl::sqlite(directory.path().join("deep/er/emergent.db"))).await.unwrap();
    store.projects_ensure("team").await.unwrap();
    let files = fs::read_dir(directory.path().join("deep/er")).unwrap();
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

#[tokio::test]
async fn servers_that_start_at_once_make_one_installation() {
    let (directory, url) = support::new_database().await;
    let opens: JoinSet<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            async move { Store::open(&url).await.unwrap().default_project() }
        })
        .collect();
    let projects = opens.join_all().await;
    assert_eq!(projects, [projects[0]; 8]);
    drop(directory);
}

#[test]
fn a_url_names_a_file_or_a_database() {
    assert_eq!("sqlite:///var/lib/x.db".parse::<DatabaseUrl>().unwrap().to_string(), "sqlite:///var/lib/x.db");
    for wrong in [
        "",
        "sqlite:",
        "sqlite://x.db",
        "sqlite:///",
        "mysql://user:secret@host/db",
        "postgres://user:secret@host",
        "postgres://user:secret@host:port/db",
        "postgres://user@host/db?sslmode=secret",
        "postgres://user@host/db?pasword=secret",
    ] {
        let error = wrong.parse::<DatabaseUrl>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_url_never_shows_its_password() {
    for (text, shown) in [
        ("postgres://me:secret@host/db", "postgres://me@host:5432/db"),
        ("postgresql://me@host:5433/db?password=secret&sslmode=require", "postgres://me@host:5433/db"),
        ("postgres://me:secret@localhost/db?host=/run/pg", "postgres://me@localhost/db?host=/run/pg"),
    ] {
        let url: DatabaseUrl = text.parse().unwrap();
        assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
    }
}
