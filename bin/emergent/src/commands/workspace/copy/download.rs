//! The copying out of a workspace. Its contents may be hostile: an archive cannot write outside its target.

use std::{
    io,
    path::{Path, PathBuf},
};

use emergent_guest_proto::files::{FileInfo, FileKind};
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::Response;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{place::base_name, unpack};
use crate::{
    client::{Client, ClientError},
    print,
};

/// The target of a copy.
pub(super) enum Target {
    /// A path on this machine.
    Path(PathBuf),
    /// Standard output.
    Stdout,
}

/// Copies a file or directory.
pub(super) async fn run(client: &Client, files: &str, path: &str, target: Target) -> Result<(), ClientError> {
    let path = if path.is_empty() { "/workspace" } else { path };
    let query = [("path", path)];
    let info: FileInfo = client.get_with(&format!("{files}/stat"), &query).await?;
    let is_directory = info.kind == FileKind::Directory;
    let route = if is_directory { "archive" } else { "content" };
    let response = client.get_bytes(&format!("{files}/{route}"), &query).await?;
    match target {
        Target::Stdout => to_stdout(response).await,
        Target::Path(target) => {
            let target = below_directory(target, path)?;
            if is_directory { unpack(response, target).await } else { save(response, &target).await }
        }
    }
}

/// Returns the path of a copy: in an existing directory, the copy keeps its own name. That name comes from the
/// workspace: if there is a link of that name, which an earlier copy may have brought, it is not followed.
fn below_directory(target: PathBuf, path: &str) -> Result<PathBuf, ClientError> {
    let Some(name) = base_name(path).filter(|_| target.is_dir() && !path.ends_with("/.")) else { return Ok(target) };
    let target = target.join(name);
    refuse_link(&target)?;
    Ok(target)
}

fn refuse_link(target: &Path) -> Result<(), ClientError> {
    if target.is_symlink() {
        let what = format!(
            "{} is a symbolic link; remove it, or name another target (- is standard output)",
            target.display()
        );
        return Err(ClientError::Usage(what));
    }
    Ok(())
}

async fn to_stdout(response: Response) -> Result<(), ClientError> {
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(broken_off)?;
        match print::raw_out(&chunk) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(source) => return Err(ClientError::Local { what: "the output cannot be written".to_owned(), source }),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Saves an answer. A device, a pipe or a socket is written into, as `cp` does: a file in its place would take it from
/// every other program. A link is refused: it may be of an earlier copy, or lead to a device.
async fn save(response: Response, target: &Path) -> Result<(), ClientError> {
    refuse_link(target)?;
    let is_special = std::fs::symlink_metadata(target).is_ok_and(|there| !there.is_file() && !there.is_dir());
    if is_special { write_into(response, target).await } else { replace(response, target).await }
}

/// Writes an answer into what is there already.
async fn write_into(response: Response, target: &Path) -> Result<(), ClientError> {
    let failed = |error| local("write into", target, error);
    let mut file = tokio::fs::OpenOptions::new().write(true).open(target).await.map_err(failed)?;
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        file.write_all(&chunk.map_err(broken_off)?).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

/// Saves an answer to a file, which appears when it is complete. Until then it has an unpredictable name in the
/// target's directory, and this process makes it or fails.
async fn replace(response: Response, target: &Path) -> Result<(), ClientError> {
    use std::os::unix::fs::PermissionsExt as _;
    let progress = print::transfer(response.content_length());
    let failed = |error| local("write", target, error);
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let saved = async {
        let mut part = tempfile::Builder::new();
        part.prefix(".emergent-").suffix(".part").permissions(std::fs::Permissions::from_mode(0o666));
        let (file, part) = part.tempfile_in(directory).map_err(failed)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let mut bytes = response.bytes_stream();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(broken_off)?;
            file.write_all(&chunk).await.map_err(failed)?;
            progress.inc(chunk.len() as u64);
        }
        file.flush().await.map_err(failed)?;
        part.persist(target).map_err(|error| failed(error.error))
    };
    let saved = saved.await;
    progress.finish_and_clear();
    saved
}

async fn unpack(response: Response, target: PathBuf) -> Result<(), ClientError> {
    let progress = print::transfer(None);
    let counter = progress.clone();
    let bytes = response.bytes_stream().map_err(io::Error::other);
    let bytes = bytes.inspect_ok(move |chunk| counter.inc(chunk.len() as u64));
    let reader = StreamReader::new(Box::pin(bytes));
    let into = target.clone();
    let unpacking = tokio::task::spawn_blocking(move || unpack::all(SyncIoBridge::new(reader), &into));
    let unpacked = unpacking.await;
    progress.finish_and_clear();
    match unpacked {
        Ok(result) => result.map_err(|error| local("unpack into", &target, error)),
        Err(panicked) => Err(local("unpack into", &target, io::Error::other(panicked))),
    }
}

fn broken_off(error: reqwest::Error) -> ClientError {
    ClientError::Local { what: "the copy broke off".to_owned(), source: io::Error::other(error) }
}

fn local(verb: &str, path: &Path, source: io::Error) -> ClientError {
    ClientError::Local { what: format!("cannot {verb} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink},
    };

    use super::*;

    #[tokio::test]
    async fn a_link_that_stands_where_the_copy_is_written_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("copies"), directory.path().join("precious"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(&outside, "precious").unwrap();
        for planted in ["link.html", "report.html.part"] {
            symlink(&outside, inside.join(planted)).unwrap();
        }
        let answer = || axum::http::Response::new("from the workspace".to_owned()).into();
        save(answer(), &inside.join("report.html")).await.unwrap();
        assert_eq!(std::fs::read_to_string(inside.join("report.html")).unwrap(), "from the workspace");
        save(answer(), &inside.join("link.html")).await.unwrap_err();
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 3, "nothing is left beside it");
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_written_into_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // Open for both, which waits for nobody.
        let mut reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
        let answer = axum::http::Response::new("from the workspace".to_owned());
        save(answer.into(), &pipe).await.unwrap();
        assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        let mut received = [0; "from the workspace".len()];
        reader.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"from the workspace");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[tokio::test]
    async fn an_archive_with_an_endless_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("copy");
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header(tar::EntryType::Regular, 5, 0o644), "kept", &b"whole"[..]).unwrap();
        for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
            let mut long = tar::Builder::new(archive.get_ref().clone());
            let endless = vec![b'a'; 2 << 20];
            long.append(&header(kind, endless.len() as u64, 0o644), endless.as_slice()).unwrap();
            let answer = axum::http::Response::new(long.into_inner().unwrap());
            let error = unpack(answer.into(), target.clone()).await.unwrap_err();
            assert!(error.for_people().contains("more than 1 MiB"), "{}", error.for_people());
            assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "whole");
        }
    }

    #[tokio::test]
    async fn a_directory_gets_its_rights_when_what_is_in_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("copy");
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header(tar::EntryType::Directory, 0, 0o555), "closed", &b""[..]).unwrap();
        archive.append_data(&mut header(tar::EntryType::Directory, 0, 0o750), "closed/open", &b""[..]).unwrap();
        let large = vec![1; 3 << 20];
        let mut described = header(tar::EntryType::Regular, large.len() as u64, 0o640);
        archive.append_data(&mut described, "closed/open/file", large.as_slice()).unwrap();
        let answer = axum::http::Response::new(archive.into_inner().unwrap());
        unpack(answer.into(), target.clone()).await.unwrap();
        let mode = |path: &str| std::fs::metadata(target.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("closed"), mode("closed/open")), (0o555, 0o750));
        assert_eq!(std::fs::read(target.join("closed/open/file")).unwrap(), large);
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(target.join("closed"), open).unwrap();
    }

    fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_cksum();
        header
    }

    #[test]
    fn a_directory_is_not_unpacked_through_a_link_that_an_earlier_copy_brought() {
        let directory = tempfile::tempdir().unwrap();
        let copies = directory.path().join("copies");
        std::fs::create_dir(&copies).unwrap();
        symlink(directory.path(), copies.join("data")).unwrap();
        assert!(below_directory(copies.clone(), "project/data").is_err());
        assert_eq!(below_directory(copies.clone(), "project/other").unwrap(), copies.join("other"));
        // What the user names is the user's.
        assert_eq!(below_directory(copies.join("data"), "x").unwrap(), copies.join("data/x"));
    }
}
