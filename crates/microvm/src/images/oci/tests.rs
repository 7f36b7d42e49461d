//! Layers that add, replace and remove.

use std::io::Write as _;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::hexadecimal::hexadecimal;

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn put(layout: &Path, contents: &[u8]) -> String {
    let digest = hexadecimal(&Sha256::digest(contents));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    File::create(blobs.join(&digest)).unwrap().write_all(contents).unwrap();
    format!("sha256:{digest}")
}

#[test]
fn later_layers_replace_and_remove() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let layers = [
        layer(&[("a/one", "1"), ("a/two", "2"), ("b/three", "3"), ("c", "old")]),
        layer(&[("a/.wh.one", ""), ("b/.wh..wh..opq", ""), ("b/four", "4"), ("c", "new")]),
    ];
    let layers: Vec<_> = layers.iter().map(|layer| format!(r#"{{"digest":"{}"}}"#, put(&layout, layer))).collect();
    let config = put(&layout, br#"{"config":{"Env":["PATH=/bin","A=b=c"]}}"#);
    let manifest = format!(r#"{{"config":{{"digest":"{config}"}},"layers":[{}]}}"#, layers.join(","));
    let manifest = put(&layout, manifest.as_bytes());
    let other = r#"{"digest":"sha256:0","platform":{"architecture":"another"}}"#;
    fs::write(layout.join("index.json"), format!(r#"{{"manifests":[{other},{{"digest":"{manifest}"}}]}}"#)).unwrap();

    let unpacked = unpack(&layout, folder.path()).unwrap();
    let has = |name: &str| unpacked.tree.join(name).exists();
    assert!(!has("a/one") && has("a/two") && !has("b/three") && has("b/four"));
    assert_eq!(fs::read_to_string(unpacked.tree.join("c")).unwrap(), "new");
    assert_eq!(unpacked.environment, [("PATH".into(), "/bin".into()), ("A".into(), "b=c".into())]);
}

#[test]
fn a_layer_cannot_remove_what_lies_outside() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, outside) = (folder.path().join("tree"), folder.path().join("outside"));
    fs::create_dir_all(&tree).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
    for name in ["link/.wh.kept", "link/.wh..wh..opq"] {
        let layer = layer(&[(name, "")]);
        remove(flate2::read::GzDecoder::new(layer.as_slice()), &tree).unwrap();
    }
    assert!(outside.join("kept").exists());
    assert!(blob("sha256:../../etc").is_err());
}

#[test]
fn a_layout_cannot_name_files_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, secret) = (folder.path().join("layout"), folder.path().join("secret"));
    fs::create_dir(&layout).unwrap();
    fs::write(&secret, r#"{"manifests":[]}"#).unwrap();
    std::os::unix::fs::symlink(&secret, layout.join("index.json")).unwrap();
    let refused = unpack(&layout, folder.path()).err().expect("the host's file was read");
    assert!(matches!(refused, ImageError::Source { reason, .. } if reason.contains("index.json")));
}
