//! `emergent firecracker …`: its effects on the host, and its refusals.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::harness::{Ended, emergent, run};

/// A release that only this test knows, and a place to install it into.
struct Prepared {
    directory: TempDir,
    checksum: String,
}

impl Prepared {
    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (program, name) in [("firecracker", "Firecracker"), ("jailer", "Jailer")] {
            let script = format!("#!/bin/sh\necho '{name} v0.0.1'\n");
            let mut header = tar::Header::new_gnu();
            header.set_size(u64::try_from(script.len()).unwrap());
            header.set_mode(0o644);
            let machine = std::env::consts::ARCH;
            let path = format!("release-v0.0.1-{machine}/{program}-v0.0.1-{machine}");
            tar.append_data(&mut header, path, script.as_bytes()).unwrap();
        }
        let archive = tar.into_inner().unwrap().finish().unwrap();
        let checksum = hex::encode(Sha256::digest(&archive));
        fs::write(directory.path().join("release.tgz"), archive).unwrap();
        Self { directory, checksum }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn setup(&self, checksum: &str, more: &[&str]) -> Ended {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let (base, bin, from) = (self.path("base"), self.path("bin"), self.path("release.tgz"));
        let mut command = emergent(&["firecracker", "setup", "--json", "--release", "v0.0.1", "--sha256", checksum]);
        command.env("PATH", path).arg("--base").arg(base).arg("--bin-dir").arg(bin).arg("--from").arg(from).args(more);
        run(&mut command)
    }
}

/// The states of the parts, by name and detail.
fn states(ended: &Ended, name: &str) -> BTreeMap<String, String> {
    let findings: Vec<serde_json::Value> = serde_json::from_str(&ended.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let named = findings.iter().filter(|finding| finding["name"] == name);
    named.map(|finding| (text(&finding["detail"]), text(&finding["state"]))).collect()
}

fn all_are(states: &BTreeMap<String, String>, expected: &str) -> bool {
    !states.is_empty() && states.values().all(|state| state == expected)
}

#[test]
fn setup_installs_the_release_and_makes_the_directories_once() {
    let prepared = Prepared::make();
    let told = prepared.setup(&prepared.checksum, &["--dry-run"]);
    assert!(all_are(&states(&told, "firecracker"), "would") && all_are(&states(&told, "directory"), "would"));
    assert!(!prepared.path("base").exists() && !prepared.path("bin").exists(), "a dry run changes nothing");

    let done = prepared.setup(&prepared.checksum, &[]);
    assert!(all_are(&states(&done, "firecracker"), "done"), "{done:?}");
    assert!(all_are(&states(&done, "directory"), "done"), "{done:?}");
    for name in ["kernels", "rootfs", "sandboxes", "snapshots"] {
        assert!(prepared.path("base").join(name).is_dir(), "{name}");
    }
    let again = prepared.setup(&prepared.checksum, &[]);
    assert!(all_are(&states(&again, "firecracker"), "present"), "{again:?}");
    assert!(all_are(&states(&again, "directory"), "present"), "{again:?}");
}

#[test]
fn setup_installs_nothing_from_other_bytes() {
    let prepared = Prepared::make();
    let refused = prepared.setup(&"00".repeat(32), &[]);
    assert_eq!(refused.status, Some(1));
    let states = states(&refused, "firecracker");
    assert!(
        all_are(&states, "missing") && states.keys().all(|detail| detail.contains(&prepared.checksum)),
        "{states:?}"
    );
    assert!(!prepared.path("bin").join("firecracker").exists());
}

#[test]
fn setup_refuses_a_release_without_its_checksum() {
    let refused = run(&mut emergent(&["firecracker", "setup", "--release", "v1.16.1"]));
    assert_eq!(refused.status, Some(2));
    assert!(refused.stderr.contains("--sha256"), "{}", refused.stderr);
}

#[test]
fn the_net_helper_serves_without_privileges_but_one() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    if !status.lines().any(|line| line.starts_with("Uid:\t0\t0")) {
        eprintln!("skipped: giving up privileges takes root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/net.sock");
    let mut command = emergent(&["firecracker", "net-helper", "--allow-uid", "64123", "--user", "64123"]);
    let mut helper =
        command.arg("--socket").arg(&socket).env("PATH", std::env::var_os("PATH").unwrap()).spawn().unwrap();
    let answer = ask(&socket, b"{\"list\":{}}\n");
    let status = fs::read_to_string(format!("/proc/{}/status", helper.id())).unwrap();
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert!(answer.starts_with("{\"listed\":["), "{answer}");
    for line in ["CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1", "Uid:\t64123\t64123"] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
}

fn ask(socket: &Path, line: &[u8]) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => panic!("the helper does not listen: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(line).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}
