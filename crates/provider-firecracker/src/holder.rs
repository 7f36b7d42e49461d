//! Records of holders, as files in the manager's directory: one for each record, made whole or not at all.
//!
//! A manager elsewhere keeps none.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use emergent_provider::{HolderRecord, Holders, OperationError, newest_of_each};
use emergent_types::ServerId;
use tokio::task::spawn_blocking;

use crate::FirecrackerProvider;

#[async_trait]
impl Holders for FirecrackerProvider {
    async fn holders(&self) -> Result<Vec<HolderRecord>, OperationError> {
        let Some(directory) = self.manager.holders() else { return Ok(Vec::new()) };
        let listed = in_background(move || list(&directory)).await.map_err(|error| self.unusable(error))?;
        Ok(newest_of_each(listed))
    }

    async fn record_holder(&self, record: &HolderRecord) -> Result<bool, OperationError> {
        let Some(directory) = self.manager.holders() else { return Ok(true) };
        let record = record.clone();
        in_background(move || add(&directory, &record)).await.map_err(|error| self.unusable(error))
    }

    async fn forget_holder(&self, server: ServerId) -> Result<(), OperationError> {
        let Some(directory) = self.manager.holders() else { return Ok(()) };
        in_background(move || forget(&directory, server)).await.map_err(|error| self.unusable(error))
    }
}

// === impl FirecrackerProvider ===

impl FirecrackerProvider {
    fn unusable(&self, error: io::Error) -> OperationError {
        OperationError::EngineUnavailable {
            engine: self.manager.name(),
            advice: "see that this user may write to the directory".to_owned(),
            source: error.into(),
        }
    }
}

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other).flatten()
}

fn list(directory: &Path) -> io::Result<Vec<HolderRecord>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut records = Vec::new();
    for entry in entries {
        // One that another process has removed meanwhile is old.
        records.extend(read(&entry?.path()).ok().flatten());
    }
    Ok(records)
}

fn read(path: &Path) -> io::Result<Option<HolderRecord>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(server) = name.rsplit_once('.').and_then(|(server, _)| server.parse().ok()) else { return Ok(None) };
    let at: DateTime<Utc> = fs::metadata(path)?.modified()?.into();
    let text = fs::read_to_string(path)?;
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let labels = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>();
    Ok(HolderRecord::from_labels(server, at, &labels))
}

fn add(directory: &Path, record: &HolderRecord) -> io::Result<bool> {
    fs::create_dir_all(directory)?;
    let before = list(directory)?;
    let before = before.iter().filter(|known| known.server == record.server).collect::<Vec<_>>();
    if before.iter().any(|known| known.number >= record.number && known.holder.process != record.holder.process) {
        return Ok(false);
    }
    let new = directory.join(format!("new-{}", record.holder.process));
    let mut file = fs::File::create(&new)?;
    for (name, value) in record.to_labels() {
        // A line is a label, whatever a path or a host is called.
        writeln!(file, "{name}={}", value.replace(['\n', '\r'], " "))?;
    }
    file.sync_all()?;
    // A link takes no name that is taken.
    let linked = fs::hard_link(&new, path_of(directory, record));
    fs::remove_file(&new)?;
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    }
    fs::File::open(directory)?.sync_all()?;
    for older in before.into_iter().filter(|known| known.number < record.number) {
        remove(directory, older)?;
    }
    Ok(true)
}

fn forget(directory: &Path, server: ServerId) -> io::Result<()> {
    list(directory)?.iter().filter(|known| known.server == server).try_for_each(|known| remove(directory, known))
}

fn remove(directory: &Path, record: &HolderRecord) -> io::Result<()> {
    fs::remove_file(path_of(directory, record)).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

fn path_of(directory: &Path, record: &HolderRecord) -> PathBuf {
    directory.join(format!("{}.{}", record.server, record.number))
}

#[cfg(test)]
mod tests {
    use emergent_provider::Holder;
    use uuid::Uuid;

    use super::*;

    fn record(server: ServerId, number: u64) -> HolderRecord {
        let holder = Holder {
            directory: "7:1".to_owned(),
            boot: "boot".to_owned(),
            device: "8".to_owned(),
            process: Uuid::now_v7(),
            host: "host".to_owned(),
            path: "/data".to_owned(),
        };
        HolderRecord { server, holder, number, ended: false, at: DateTime::UNIX_EPOCH }
    }

    #[test]
    fn of_two_that_add_the_same_number_the_second_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("holders");
        let server = ServerId::generate();
        let (first, second, other) = (record(server, 1), record(server, 1), record(ServerId::generate(), 1));
        assert!(add(&directory, &first).unwrap() && !add(&directory, &second).unwrap());
        assert!(add(&directory, &other).unwrap());
        let next = HolderRecord { number: 2, ..first };
        assert!(add(&directory, &next).unwrap());
        let seen = list(&directory).unwrap();
        let numbers = seen.iter().filter(|known| known.server == server).map(|known| (known.number, &known.holder));
        assert_eq!(numbers.collect::<Vec<_>>(), [(2, &next.holder)]);
        forget(&directory, server).unwrap();
        assert_eq!(list(&directory).unwrap().iter().map(|known| known.server).collect::<Vec<_>>(), [other.server]);
    }
}
