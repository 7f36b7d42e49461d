//! Layers that add, replace and remove.

use sha2::Digest as _;

use super::*;

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
    let digest = hex::encode(Sha256::digest(contents));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(&digest), contents).unwrap();
    format!("sha256:{digest}")
}

fn descriptor(kind: &str, digest: &str, more: &str) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":1{more}}}"#)
}

/// Writes an image with two layers; returns the digests of its blobs.
fn put_image(layout: &Path) -> Vec<String> {
    let layers = [
        layer(&[("a/one", "1"), ("a/two", "2"), ("b/three", "3"), ("c", "old")]),
        layer(&[("a/.wh.one", ""), ("b/.wh..wh..opq", ""), ("b/four", "4"), ("c", "new")]),
    ];
    let layers = layers.map(|layer| put(layout, &layer));
    let config = br#"{"architecture":"any","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
                      "config":{"Env":["PATH=/bin","A=b=c"]}}"#;
    let config = put(layout, config);
    let listed = layers.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer, "")).collect::<Vec<_>>().join(",");
    let of_config = descriptor("config.v1+json", &config, "");
    let manifest = put(layout, format!(r#"{{"schemaVersion":2,"config":{of_config},"layers":[{listed}]}}"#).as_bytes());
    let nowhere = format!("sha256:{}", "0".repeat(64));
    let other = descriptor("manifest.v1+json", &nowhere, r#","platform":{"architecture":"another","os":"linux"}"#);
    let own = descriptor("manifest.v1+json", &manifest, "");
    fs::write(layout.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{other},{own}]}}"#)).unwrap();
    layers.into_iter().chain([config, manifest]).collect()
}

#[test]
fn later_layers_replace_and_remove() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    put_image(&layout);

    let unpacked = unpack(&layout, folder.path()).unwrap();
    let has = |name: &str| unpacked.tree.join(name).exists();
    assert!(!has("a/one") && has("a/two") && !has("b/three") && has("b/four"));
    assert_eq!(fs::read_to_string(unpacked.tree.join("c")).unwrap(), "new");
    assert_eq!(unpacked.environment, [("PATH".into(), "/bin".into()), ("A".into(), "b=c".into())]);
}

#[test]
fn a_blob_with_one_flipped_byte_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    for digest in put_image(&layout) {
        let blob = layout.join("blobs").join(digest.replace(':', "/"));
        let whole = fs::read(&blob).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(&blob, flipped).unwrap();
        let refused = unpack(&layout, folder.path()).err().expect("a damaged blob was taken");
        let ImageError::Source { reason, .. } = refused else { panic!("{refused}") };
        assert!(reason.contains(&format!("the blob {digest} was damaged")), "{reason}");
        fs::write(&blob, whole).unwrap();
    }
    unpack(&layout, folder.path()).unwrap();
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
    assert!("sha256:../../etc".parse::<Digest>().is_err());
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
