//! The root file system of a container, read from its layers on this machine.
//!
//! The engine's API could read it, too (`HEAD /containers/…/archive`). But the engine then mounts the container's volumes
//! on the host, at paths in which another sandbox that shares a volume may change a link meanwhile, so that a volume ends
//! up over a directory of the host. Nothing changes the layers of a container that does not run, and nothing is mounted
//! to read them. Root inside a container that runs may change them between two looks.
//!
//! Layers are those of the engine's `overlay2` driver: a name is looked for from the topmost layer down, a whiteout hides
//! the lower ones, and so does a directory that is opaque (Linux, `filesystems/overlayfs.rst`).

use std::{
    collections::{HashMap, VecDeque},
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bollard::models::ContainerInspectResponse;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fgetxattr, openat, readlinkat, statat},
    io::Errno,
};

use crate::engine::EngineError;

/// The most links that a path leads through, as in Linux.
const MOST_LINKS: usize = 40;
const OPAQUE: &str = "trusted.overlay.opaque";
/// A directory with this attribute has the lower files of another name. The engine mounts without that feature.
const REDIRECT: &str = "trusted.overlay.redirect";

/// The root file system of a container, and the volumes in it.
#[derive(Debug)]
pub(crate) struct RootFs {
    root: Arc<Directory>,
    /// The directories of the host that are mounted at paths of the container.
    mounted: HashMap<String, PathBuf>,
}

/// A directory, in each layer that has it: the topmost first.
#[derive(Debug)]
struct Directory(Vec<OwnedFd>);

/// The end of a path.
#[derive(Debug)]
pub(crate) struct Found {
    /// The path without links; names that are not there stay as they are.
    pub(crate) path: String,
    /// The status of the file, where there is one that is no directory.
    pub(crate) file: Option<Stat>,
    /// Whether a directory is there.
    pub(crate) is_directory: bool,
}

enum Node {
    Absent,
    Directory(Directory),
    Link(OsString),
    File(Stat),
}

/// Looks at the root file system of a container on a thread that may block. Passes where this process does not see it.
pub(crate) async fn look(
    container: ContainerInspectResponse,
    check: impl FnOnce(&RootFs, &ContainerInspectResponse) -> Result<(), EngineError> + Send + 'static,
) -> Result<(), EngineError> {
    let looked = tokio::task::spawn_blocking(move || match RootFs::of(&container).map_err(EngineError::Unseen)? {
        Some(root) => check(&root, &container),
        None => Ok(()),
    });
    // A look that did not end has not seen the files.
    looked.await.unwrap_or_else(|error| Err(EngineError::Unseen(io::Error::other(error))))
}

// === impl RootFs ===

impl RootFs {
    /// Returns the root file system of a container. `None` where this process cannot see it: the engine's driver is
    /// another, or its files are another machine's or another user's.
    ///
    /// # Errors
    /// When a layer cannot be opened for another reason.
    pub(crate) fn of(container: &ContainerInspectResponse) -> io::Result<Option<Self>> {
        let data = container.graph_driver.as_ref().map(|driver| &driver.data);
        let layer = |key: &str| data.and_then(|data| data.get(key)).map(String::as_str).unwrap_or_default();
        let lower = layer("LowerDir").split(':');
        let layers: Vec<_> = std::iter::once(layer("UpperDir")).chain(lower).filter(|path| !path.is_empty()).collect();
        let mounts = container.mounts.iter().flatten();
        let mounted =
            mounts.filter_map(|mount| Some((mount.destination.clone()?, PathBuf::from(mount.source.clone()?))));
        Self::open(&layers, mounted.collect())
    }

    pub(crate) fn open(layers: &[&str], mounted: HashMap<String, PathBuf>) -> io::Result<Option<Self>> {
        let mut opened = Vec::with_capacity(layers.len());
        for layer in layers {
            match open_directory(CWD, layer) {
                Ok(directory) => opened.push(directory),
                Err(Errno::NOENT | Errno::ACCESS | Errno::PERM) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((!opened.is_empty()).then(|| Self { root: Arc::new(Directory(opened)), mounted }))
    }

    /// Finds the end of a path as the engine sees it on the host: without what is mounted when the container runs.
    ///
    /// # Errors
    /// When the path has too many links, or a directory cannot be read.
    pub(crate) fn find(&self, path: &str) -> io::Result<Found> {
        self.walk(path, |_| None)
    }

    /// Finds the end of a mount's path as the runtime sees it when it mounts there: the mounts above it are there.
    ///
    /// # Errors
    /// As [`RootFs::find`].
    pub(crate) fn find_mount_point(&self, path: &str) -> io::Result<Found> {
        self.walk(path, |above| self.mounted.get(above).filter(|_| above != path))
    }

    fn walk<'a>(&self, path: &str, mounted: impl Fn(&str) -> Option<&'a PathBuf>) -> io::Result<Found> {
        let mut pending: VecDeque<OsString> = names(OsStr::new(path));
        // The directories on the way, each with its name; none where nothing is there.
        let mut way: Vec<(OsString, Option<Arc<Directory>>)> = Vec::new();
        let (mut links, mut file) = (0, None);
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                way.pop();
                continue;
            }
            let above = way.last().map_or(Some(&self.root), |(_, directory)| directory.as_ref());
            let node = above.map_or(Ok(Node::Absent), |above| above.child(&name))?;
            let (next, is_file) = match node {
                Node::Link(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.as_bytes().starts_with(b"/") {
                        way.clear();
                    }
                    let mut rest = names(&target);
                    rest.append(&mut pending);
                    pending = rest;
                    continue;
                }
                Node::Directory(directory) => (Some(Arc::new(directory)), None),
                Node::File(stat) => (None, Some(stat)),
                Node::Absent => (None, None),
            };
            file = is_file.filter(|_| pending.is_empty());
            way.push((name, next));
            if let Some(source) = mounted(&text_of(&way)) {
                let volume = open_directory(CWD, source)?;
                if let Some((_, directory)) = way.last_mut() {
                    *directory = Some(Arc::new(Directory(vec![volume])));
                }
            }
        }
        let is_directory = way.last().is_none_or(|(_, directory)| directory.is_some());
        Ok(Found { path: text_of(&way), file, is_directory })
    }
}

// === impl Directory ===

impl Directory {
    fn child(&self, name: &OsStr) -> io::Result<Node> {
        let mut found = Vec::new();
        for layer in &self.0 {
            let stat = match statat(layer, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let directory = open_directory(layer, name)?;
                    if has(&directory, REDIRECT)?.is_some() {
                        return Err(io::Error::other("a layer has directories of the kind redirect_dir"));
                    }
                    let is_opaque = has(&directory, OPAQUE)?.is_some_and(|value| value == b"y");
                    found.push(directory);
                    if is_opaque {
                        break;
                    }
                }
                // Anything else is hidden by a directory above it.
                _ if !found.is_empty() => break,
                FileType::CharacterDevice if stat.st_rdev == 0 => break,
                FileType::Symlink => {
                    return Ok(Node::Link(OsString::from_vec(readlinkat(layer, name, [])?.into_bytes())));
                }
                _ => return Ok(Node::File(stat)),
            }
        }
        Ok(if found.is_empty() { Node::Absent } else { Node::Directory(Self(found)) })
    }
}

fn open_directory(above: impl rustix::fd::AsFd, path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(above, path.as_ref(), flags, Mode::empty())
}

/// Returns the beginning of an extended attribute's value, where the directory has the attribute.
fn has(directory: &OwnedFd, attribute: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; 256];
    match fgetxattr(directory.as_fd(), attribute, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(Errno::RANGE) => Ok(Some(value.to_vec())),
        Err(error) => Err(error.into()),
    }
}

fn names(path: &OsStr) -> VecDeque<OsString> {
    let names = path.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.map(|name| OsString::from_vec(name.to_vec())).collect()
}

fn text_of(way: &[(OsString, Option<Arc<Directory>>)]) -> String {
    let mut text = String::new();
    for (name, _) in way {
        let _ = write!(text, "/{}", name.to_string_lossy());
    }
    if text.is_empty() { "/".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use rustix::fs::mknodat;

    use super::*;

    struct Layers {
        directory: tempfile::TempDir,
    }

    impl Layers {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for layer in ["upper", "lower", "volume"] {
                fs::create_dir(directory.path().join(layer)).unwrap();
            }
            Self { directory }
        }

        fn path(&self, path: &str) -> PathBuf {
            let path = self.directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        fn found(&self, path: &str) -> (String, Option<i64>, bool) {
            let found = self.root().find(path).unwrap();
            (found.path, found.file.map(|stat| stat.st_size), found.is_directory)
        }

        fn root(&self) -> RootFs {
            let layers = ["upper", "lower"].map(|layer| self.path(layer).to_str().unwrap().to_owned());
            let mounted = HashMap::from([("/workspace".to_owned(), self.path("volume"))]);
            RootFs::open(&layers.each_ref().map(String::as_str), mounted).unwrap().unwrap()
        }
    }

    #[test]
    fn the_topmost_layer_counts_and_a_whiteout_hides() {
        let layers = Layers::new();
        fs::write(layers.path("lower/etc/passwd"), "lower").unwrap();
        fs::write(layers.path("lower/etc/group"), "lower").unwrap();
        fs::write(layers.path("upper/etc/passwd"), "of the upper").unwrap();
        assert_eq!(layers.found("/etc/passwd"), ("/etc/passwd".to_owned(), Some(12), false));
        assert_eq!(layers.found("/etc/group").1, Some(5), "a directory is that of all layers");
        mknodat(CWD, layers.path("upper/etc/group"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        assert_eq!(layers.found("/etc/group"), ("/etc/group".to_owned(), None, false));
        assert_eq!(layers.found("/etc"), ("/etc".to_owned(), None, true));
        assert_eq!(layers.found("/nothing/there"), ("/nothing/there".to_owned(), None, false));
        fs::write(layers.path("upper/file"), "").unwrap();
        fs::create_dir_all(layers.path("lower/file/below")).unwrap();
        assert!(!layers.found("/file/below").2, "a file hides a directory");
    }

    #[test]
    fn links_are_followed_across_layers_and_never_out() {
        let layers = Layers::new();
        symlink("/real/../real", layers.path("lower/etc")).unwrap();
        fs::write(layers.path("upper/real/passwd"), "12345").unwrap();
        assert_eq!(layers.found("/etc/passwd"), ("/real/passwd".to_owned(), Some(5), false));
        symlink("../../../../../../etc/passwd", layers.path("upper/out")).unwrap();
        assert_eq!(layers.found("/out"), ("/real/passwd".to_owned(), Some(5), false));
        symlink("round", layers.path("upper/round")).unwrap();
        assert!(layers.root().find("/round").is_err());
    }

    #[test]
    fn a_mount_point_is_found_through_the_mounts_above_it() {
        let layers = Layers::new();
        symlink("/.emergent", layers.path("volume/inner")).unwrap();
        fs::create_dir_all(layers.path("lower/workspace/inner")).unwrap();
        assert_eq!(layers.found("/workspace/inner").0, "/workspace/inner", "the engine sees no mount");
        assert_eq!(layers.root().find_mount_point("/workspace/inner").unwrap().path, "/.emergent");
        assert_eq!(layers.root().find_mount_point("/workspace").unwrap().path, "/workspace");
    }

    #[test]
    fn layers_that_cannot_be_seen_are_told_apart() {
        assert!(RootFs::open(&["/nowhere/at/all"], HashMap::new()).unwrap().is_none());
        assert!(RootFs::of(&ContainerInspectResponse::default()).unwrap().is_none());
    }
}
