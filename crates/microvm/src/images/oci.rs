//! OCI image layouts: an index, a manifest, a configuration, and layers that are laid one over the other.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{ImageError, Unpacked, failed, tree};

/// What precedes the name of a file that a layer removes, and the name that removes all of a directory.
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
    let wrong = |reason: String| ImageError::Source { source_name: source.display().to_string(), reason };
    let mut index: Index = json(&layout.join("index.json")).map_err(&wrong)?;
    let manifest: Manifest = loop {
        let chosen = choose(index.manifests).ok_or_else(|| wrong("it has no image for this machine".to_owned()))?;
        let path = blob(&layout, &chosen.digest).map_err(&wrong)?;
        match chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list") {
            true => index = json(&path).map_err(&wrong)?,
            false => break json(&path).map_err(&wrong)?,
        }
    };
    let image: Image = json(&blob(&layout, &manifest.config.digest).map_err(&wrong)?).map_err(&wrong)?;
    let target = work.join("tree");
    fs::create_dir_all(&target).map_err(failed("make", &target))?;
    for layer in &manifest.layers {
        let path = blob(&layout, &layer.digest).map_err(&wrong)?;
        let applied = remove(&path, &target).and_then(|()| add(&path, &target));
        applied.map_err(failed("unpack the layer", &path))?;
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

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_JSON).read_to_end(&mut text));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Where the blob of a digest is.
fn blob(layout: &Path, digest: &str) -> Result<PathBuf, String> {
    let (algorithm, value) = digest.split_once(':').ok_or_else(|| format!("{digest:?} is no digest"))?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match plain(algorithm) && plain(value) {
        true => Ok(layout.join("blobs").join(algorithm).join(value)),
        false => Err(format!("{digest:?} is no digest")),
    }
}

fn open(layer: &Path) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let known = File::open(layer)?.read(&mut magic)?;
    let file = BufReader::new(File::open(layer)?);
    Ok(match magic.get(..known).unwrap_or_default() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?),
        _ => Box::new(file),
    })
}

/// Removes what the layer says that the layers below have too much.
fn remove(layer: &Path, tree: &Path) -> io::Result<()> {
    for entry in tree::archive_of(open(layer)?).entries()? {
        let path = entry?.path()?.into_owned();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(removed) = name.strip_prefix(REMOVED) else { continue };
        let parent = tree.join(path.parent().unwrap_or(Path::new("")));
        // A link in a layer below must not lead out of the tree.
        let Ok(parent) = fs::canonicalize(parent) else { continue };
        if !parent.starts_with(fs::canonicalize(tree)?) {
            continue;
        }
        if name == ALL_REMOVED {
            for child in fs::read_dir(&parent)? {
                discard(&child?.path())?;
            }
        } else if !matches!(removed, "" | "." | "..") {
            discard(&parent.join(removed))?;
        }
    }
    Ok(())
}

fn discard(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn add(layer: &Path, tree: &Path) -> io::Result<()> {
    for entry in tree::archive_of(open(layer)?).entries()? {
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
