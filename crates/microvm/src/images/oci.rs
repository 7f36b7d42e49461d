//! OCI image layouts: an index, a manifest, a configuration, and layers that are laid one over the other.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    ImageError, Unpacked, failed,
    root::{self, Root},
    tree,
};

/// The prefix of the name of a file that a layer removes, and the name that removes all of a directory.
const REMOVED: &str = ".wh.";
const ALL_REMOVED: &str = ".wh..wh..opq";

/// The largest index, manifest or configuration.
const LONGEST_JSON: u64 = 4 << 20;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize, Default)]
struct Image {
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    env: Option<Vec<String>>,
}

/// Unpacks the image of this machine's architecture.
pub(super) fn unpack(source: &Path, work: &Path) -> Result<Unpacked, ImageError> {
    let layout = match source.is_dir() {
        true => source.to_owned(),
        false => {
            let layout = work.join("layout");
            let file = File::open(source).map_err(failed("open", source))?;
            tree::unpack(BufReader::new(file), &layout).map_err(failed("unpack", source))?;
            layout
        }
    };
    let files = Root::open(&layout).map_err(failed("open", &layout))?;
    let wrong = |reason: String| ImageError::Source { source_name: source.display().to_string(), reason };
    let mut index: Index = json(&files, Path::new("index.json")).map_err(&wrong)?;
    let manifest: Manifest = loop {
        let chosen = choose(index.manifests).ok_or_else(|| wrong("it has no image for this machine".to_owned()))?;
        let path = blob(&chosen.digest).map_err(&wrong)?;
        match chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list") {
            true => index = json(&files, &path).map_err(&wrong)?,
            false => break json(&files, &path).map_err(&wrong)?,
        }
    };
    let image: Image = json(&files, &blob(&manifest.config.digest).map_err(&wrong)?).map_err(&wrong)?;
    let target = work.join("tree");
    fs::create_dir_all(&target).map_err(failed("make", &target))?;
    for layer in &manifest.layers {
        let path = blob(&layer.digest).map_err(&wrong)?;
        let open = || files.file(&path).and_then(decompressed);
        let applied = open().and_then(|layer| remove(layer, &target)).and_then(|()| add(open()?, &target));
        applied.map_err(failed("unpack the layer", &layout.join(&path)))?;
    }
    let environment = image.config.unwrap_or_default().env.unwrap_or_default();
    Ok(Unpacked { tree: target, environment: tree::variables(environment) })
}

fn choose(manifests: Vec<Descriptor>) -> Option<Descriptor> {
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits =
        |descriptor: &Descriptor| descriptor.platform.as_ref().is_none_or(|platform| platform.architecture == here);
    manifests.into_iter().find(fits)
}

fn json<T: serde::de::DeserializeOwned>(files: &Root, path: &Path) -> Result<T, String> {
    let mut text = Vec::new();
    let read = files.file(path).and_then(|file| file.take(LONGEST_JSON).read_to_end(&mut text));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns the path of a digest's blob in its layout.
fn blob(digest: &str) -> Result<PathBuf, String> {
    let (algorithm, value) = digest.split_once(':').ok_or_else(|| format!("{digest:?} is no digest"))?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match plain(algorithm) && plain(value) {
        true => Ok(Path::new("blobs").join(algorithm).join(value)),
        false => Err(format!("{digest:?} is no digest")),
    }
}

fn decompressed(mut layer: File) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let known = layer.read(&mut magic)?;
    layer.rewind()?;
    let file = BufReader::new(layer);
    Ok(match magic.get(..known).unwrap_or_default() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?),
        _ => Box::new(file),
    })
}

/// Removes the files of lower layers that the layer marks as removed.
fn remove(layer: impl Read, tree: &Path) -> io::Result<()> {
    let root = Root::open(tree)?;
    for entry in tree::archive_of(layer).entries()? {
        let path = entry?.path()?.into_owned();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(removed) = name.strip_prefix(REMOVED) else { continue };
        let parent = match path.parent().filter(|parent| *parent != Path::new("")) {
            // A link in a layer below means what it means in the tree.
            Some(parent) => root.directory(parent),
            None => root.directory(Path::new(".")),
        };
        let parent = match parent {
            Err(error) if root::is_nowhere(&error) => continue,
            found => found?,
        };
        if name == ALL_REMOVED {
            root::empty(&parent)?;
        } else if !matches!(removed, "" | "." | "..") {
            root::discard(parent.as_fd(), Path::new(removed))?;
        }
    }
    Ok(())
}

fn add(layer: impl Read, tree: &Path) -> io::Result<()> {
    for entry in tree::archive_of(layer).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let removes = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(REMOVED));
        if !removes {
            entry.unpack_in(tree)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
