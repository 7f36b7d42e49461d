//! Images: root file systems that machines' disks are cloned from, made from container images or from trees of files.
//!
//! An image is known by what went into it. Making one again that is there already costs nothing; its note is written
//! last, so an image without one is not there.

mod oci;
mod root;
mod tree;

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Layout,
    disks::{self, DiskError},
    durable,
    kernels::check_name,
};

/// Another number: images are made anew.
const RECIPE: u32 = 1;

/// The source of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// An image of the local Docker engine, by name or id.
    Docker(String),
    /// An OCI image layout: a directory, or a tar of one.
    Oci(PathBuf),
    /// A directory with a whole root file system, as debootstrap makes it.
    Tree(PathBuf),
}

/// The description of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The image's name here.
    pub name: String,
    /// The source that the image came from, for people.
    pub source: String,
    /// SHA-256 over everything that went into it.
    pub content: String,
    /// The size of its file system, in bytes.
    pub bytes: u64,
    /// The environment of commands, as names and values.
    pub environment: Vec<(String, String)>,
}

/// The reason for which an image was not made, or is not there.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image of that name.
    #[error("there is no image {0:?}; make one with `emergent image build`")]
    Missing(String),
    /// A name that could leave its directory.
    #[error("{0:?} cannot be a name; use letters, digits, dots, dashes and underscores")]
    Name(String),
    /// The source is not what it is said to be.
    #[error("{source_name} is no image: {reason}")]
    Source {
        /// The source.
        source_name: String,
        /// The fault of the image.
        reason: String,
    },
    /// Docker does not give the image away.
    #[error("docker {step} failed: {message}")]
    Docker {
        /// The step that failed.
        step: &'static str,
        /// The program's message.
        message: String,
    },
    /// The file system could not be made.
    #[error("the file system could not be made")]
    FileSystem(#[from] DiskError),
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The action that failed.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// The parts of an image before its file system is made.
struct Unpacked {
    tree: PathBuf,
    environment: Vec<(String, String)>,
}

/// Makes an image under `name`, with a file system of `bytes` and the static program `guest` in it. One that has the
/// name already is replaced; disks that were cloned from it share nothing with the new one. Blocks for seconds to
/// minutes. Files keep their owners if the caller is root.
///
/// # Errors
/// [`ImageError`]; then the name means what it meant before.
pub fn build(
    layout: &Layout,
    name: &str,
    source: &ImageSource,
    bytes: u64,
    guest: &Path,
) -> Result<Template, ImageError> {
    check_name(name).map_err(|_| ImageError::Name(name.to_owned()))?;
    let directory = layout.rootfs();
    fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
    let program = fs::read(guest).map_err(failed("read", guest))?;
    let content = content(source, bytes, &program)?;
    if let (Some(content), Ok(template)) = (&content, find(layout, name))
        && template.content == *content
    {
        hand_out(&root(layout, name), &directory)?;
        return Ok(template);
    }
    let work =
        tempfile::Builder::new().prefix(".build-").tempdir_in(&directory).map_err(failed("write in", &directory))?;
    let unpacked = match source {
        ImageSource::Docker(image) => from_docker(image, work.path())?,
        ImageSource::Oci(path) => oci::unpack(path, work.path())?,
        ImageSource::Tree(path) => Unpacked { tree: path.clone(), environment: Vec::new() },
    };
    let tree = match source {
        // What is the caller's is not changed.
        ImageSource::Tree(path) => {
            let copy = work.path().join("tree");
            tree::copy(path, &copy).map_err(failed("copy", path))?;
            copy
        }
        ImageSource::Docker(_) | ImageSource::Oci(_) => unpacked.tree,
    };
    tree::inject(&tree, &program, &unpacked.environment).map_err(failed("put the guest into", &tree))?;
    let image = work.path().join("rootfs.ext4");
    disks::make_file_system(&image, Some(&tree), Some(bytes))?;
    let template = Template {
        name: name.to_owned(),
        source: source.to_string(),
        content: content.unwrap_or_else(|| "not known".to_owned()),
        bytes,
        environment: unpacked.environment,
    };
    hand_out(&image, &directory)?;
    let target = root(layout, name);
    durable::sync(&image).and_then(|()| durable::rename(&image, &target)).map_err(failed("replace", &target))?;
    let note = serde_json::to_vec_pretty(&template).map_err(io::Error::from);
    let (aside, target) = (work.path().join("note"), note_file(layout, name));
    note.and_then(|note| durable::write(&aside, &note)).map_err(failed("write", &aside))?;
    durable::rename(&aside, &target).map_err(failed("replace", &target))?;
    Ok(template)
}

/// The image of a name.
///
/// # Errors
/// [`ImageError::Missing`] when it was never made as a whole.
pub fn find(layout: &Layout, name: &str) -> Result<Template, ImageError> {
    check_name(name).map_err(|_| ImageError::Name(name.to_owned()))?;
    let note = fs::read(note_file(layout, name)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    note.filter(|_| root(layout, name).is_file()).ok_or_else(|| ImageError::Missing(name.to_owned()))
}

/// The file that disks are cloned from.
pub fn root(layout: &Layout, name: &str) -> PathBuf {
    layout.rootfs().join(format!("{name}-rootfs.ext4"))
}

fn note_file(layout: &Layout, name: &str) -> PathBuf {
    layout.rootfs().join(format!("{name}-rootfs.json"))
}

/// Returns the hash by which the image is known; `None` for a tree, which would have to be read whole to know it.
fn content(source: &ImageSource, bytes: u64, guest: &[u8]) -> Result<Option<String>, ImageError> {
    let origin = match source {
        ImageSource::Docker(image) => docker("inspect", &["image", "inspect", "--format", "{{.Id}}", image])?,
        ImageSource::Oci(path) if path.is_dir() => {
            let index = path.join("index.json");
            fs::read_to_string(&index).map_err(failed("read", &index))?
        }
        ImageSource::Oci(_) | ImageSource::Tree(_) => return Ok(None),
    };
    let mut hash = Sha256::new();
    for part in [RECIPE.to_string().as_bytes(), origin.trim().as_bytes(), bytes.to_string().as_bytes(), guest] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    Ok(Some(hex::encode(hash.finalize())))
}

/// Docker's own flattening of an image, by way of a container that never runs.
fn from_docker(image: &str, work: &Path) -> Result<Unpacked, ImageError> {
    let inspect = || docker("inspect", &["image", "inspect", "--format", "{{json .Config.Env}}", image]);
    let environment = inspect().or_else(|_| docker("pull", &["pull", "--quiet", image]).and_then(|_| inspect()))?;
    let archive = work.join("image.tar");
    let container = docker("create", &["create", "--network", "none", image, "never-run"])?;
    let exported = docker("export", &["export", "--output", &archive.to_string_lossy(), container.trim()]);
    let removed = docker("rm", &["rm", "--force", container.trim()]);
    exported.and(removed)?;
    let tree = work.join("tree");
    let file = fs::File::open(&archive).map_err(failed("open", &archive))?;
    tree::unpack(file, &tree).map_err(failed("unpack", &archive))?;
    fs::remove_file(&archive).map_err(failed("remove", &archive))?;
    let variables: Option<Vec<String>> = serde_json::from_str(&environment).unwrap_or_default();
    Ok(Unpacked { tree, environment: tree::variables(variables.unwrap_or_default()) })
}

fn docker(step: &'static str, arguments: &[&str]) -> Result<String, ImageError> {
    let failed = |message| ImageError::Docker { step, message };
    let output = Command::new("docker").args(arguments).output();
    let output = output.map_err(|error| failed(format!("{error}; install docker, or give an OCI layout")))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Gives a file that root has made to the owner of its directory: a manager that is somebody else may link only what is
/// its own.
fn hand_out(file: &Path, directory: &Path) -> Result<(), ImageError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(directory).map_err(failed("look at", directory))?;
    chown(file, Some(owner.uid()), Some(owner.gid())).map_err(failed("hand over", file))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::File { action, path, source }
}

// === impl ImageSource ===

impl std::fmt::Display for ImageSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Docker(image) => write!(f, "docker:{image}"),
            Self::Oci(path) => write!(f, "oci:{}", path.display()),
            Self::Tree(path) => write!(f, "tree:{}", path.display()),
        }
    }
}
