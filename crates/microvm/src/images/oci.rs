//! OCI image layouts: an index, a manifest, a configuration, and layers that are laid one over the other. A blob is
//! read only if its contents have its digest.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Seek as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use oci_spec::image::{Arch, Descriptor, Digest, DigestAlgorithm, ImageConfiguration, ImageIndex, ImageManifest};
use sha2::{Sha256, Sha384, Sha512};

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
/// The bytes of a blob that are read at once for its digest.
const HASHED_AT_ONCE: usize = 64 << 10;

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
    let mut index: ImageIndex = files
        .file(Path::new("index.json"))
        .map_err(|error| error.to_string())
        .and_then(json)
        .map_err(|reason| wrong(format!("index.json: {reason}")))?;
    let manifest: ImageManifest = loop {
        let chosen = choose(index.manifests()).ok_or_else(|| wrong("it has no image for this machine".to_owned()))?;
        let media_type = chosen.media_type().as_ref();
        match media_type.contains("index") || media_type.contains("manifest.list") {
            true => index = json_blob(&files, chosen.digest()).map_err(&wrong)?,
            false => break json_blob(&files, chosen.digest()).map_err(&wrong)?,
        }
    };
    let image: ImageConfiguration = json_blob(&files, manifest.config().digest()).map_err(&wrong)?;
    let target = work.join("tree");
    fs::create_dir_all(&target).map_err(failed("make", &target))?;
    for layer in manifest.layers() {
        let file = blob(&files, layer.digest()).map_err(&wrong)?;
        let removed = decompressed(&file).and_then(|layer| remove(layer, &target));
        let applied = removed.and_then(|()| add(decompressed(&file)?, &target));
        applied.map_err(failed("unpack the layer", &layout.join(path_of(layer.digest()))))?;
    }
    let environment = image.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default();
    Ok(Unpacked { tree: target, environment: tree::variables(environment) })
}

fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let here = Arch::default();
    manifests.iter().find(|it| it.platform().as_ref().is_none_or(|platform| *platform.architecture() == here))
}

fn json_blob<T: serde::de::DeserializeOwned>(files: &Root, digest: &Digest) -> Result<T, String> {
    json(blob(files, digest)?).map_err(|reason| format!("the blob {digest}: {reason}"))
}

fn json<T: serde::de::DeserializeOwned>(file: File) -> Result<T, String> {
    let mut text = Vec::new();
    file.take(LONGEST_JSON).read_to_end(&mut text).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// Opens a blob, after a check that its contents are those of its digest.
fn blob(files: &Root, digest: &Digest) -> Result<File, String> {
    let failed = |error: io::Error| format!("the blob {digest} cannot be read: {error}");
    let mut file = files.file(&path_of(digest)).map_err(failed)?;
    let found = match digest.algorithm() {
        DigestAlgorithm::Sha256 => hash::<Sha256>(&file),
        DigestAlgorithm::Sha384 => hash::<Sha384>(&file),
        DigestAlgorithm::Sha512 => hash::<Sha512>(&file),
        other => return Err(format!("the blob {digest} cannot be checked: {other} is no known kind of digest")),
    };
    let found = found.map_err(failed)?;
    if found != digest.digest() {
        return Err(format!(
            "the blob {digest} was damaged or changed, its contents have the digest {found}; export the image again"
        ));
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// Returns the path of a digest's blob in its layout.
fn path_of(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
}

fn hash<H: sha2::Digest>(file: &File) -> io::Result<String> {
    let (mut reader, mut hash) = (BufReader::with_capacity(HASHED_AT_ONCE, file), H::new());
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
}

fn decompressed(mut layer: &File) -> io::Result<Box<dyn Read + '_>> {
    let mut magic = [0; 4];
    layer.rewind()?;
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
