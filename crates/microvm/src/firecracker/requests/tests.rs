//! Tests of the requests against a peer that follows the documented contract: their order, their fields, and the
//! requests that are refused.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

use super::*;
use crate::{Kernel, MachineId};

#[derive(Debug, Default, PartialEq, Clone, Copy)]
enum Phase {
    #[default]
    Configuring,
    Running,
    Paused,
}

#[derive(Debug, Default)]
struct Contract {
    phase: Phase,
    given: Vec<(String, Value)>,
}

impl Contract {
    fn has(&self, path: &str) -> bool {
        self.given.iter().any(|(given, _)| given == path)
    }

    /// The peer's answer: none, or a fault.
    fn take(&mut self, method: &str, path: &str, body: Value) -> Result<(), &'static str> {
        let configuring = self.phase == Phase::Configuring;
        match (method, path) {
            ("PUT", "/actions") => {
                if !configuring || body["action_type"] != "InstanceStart" || !self.has("/boot-source") {
                    return Err("The requested operation is not supported in this state");
                }
                self.phase = Phase::Running;
            }
            ("PATCH", "/vm") => match (self.phase, body["state"].as_str()) {
                (Phase::Configuring, _) | (_, None) => return Err("not started"),
                (_, Some(state)) => self.phase = if state == "Paused" { Phase::Paused } else { Phase::Running },
            },
            ("PUT", "/snapshot/create") if self.phase != Phase::Paused => {
                return Err("save/restore operation is not allowed on a running microVM");
            }
            ("PUT", "/snapshot/create") => {}
            // Only a process that was told nothing else may load.
            ("PUT", "/snapshot/load") if !configuring || !self.given.is_empty() => {
                return Err("Loading a microVM snapshot not allowed after configuring boot-specific resources");
            }
            ("PUT", "/snapshot/load") => self.phase = Phase::Running,
            ("PUT", _) if !configuring => return Err("not supported after starting the microVM"),
            ("PUT", path) if path.starts_with("/drives/") && body["drive_id"] != path["/drives/".len()..] => {
                return Err("the id in the path and the id in the body differ");
            }
            ("PUT", "/machine-config" | "/boot-source" | "/vsock" | "/entropy" | "/drives/root" | "/drives/data") => {}
            ("PUT", "/network-interfaces/eth0") => {}
            _ => return Err("Invalid request method and/or path"),
        }
        self.given.push((path.to_owned(), body));
        Ok(())
    }
}

/// Serves the contract on a socket of its own.
async fn peer() -> (tempfile::TempDir, Api, Arc<Mutex<Contract>>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let contract = Arc::new(Mutex::new(Contract::default()));
    let served = Arc::clone(&contract);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut request, mut piece) = (Vec::new(), [0; 4096]);
            let (head, body) = loop {
                let read = stream.read(&mut piece).await.unwrap();
                request.extend_from_slice(&piece[..read]);
                let text = String::from_utf8(request.clone()).unwrap();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length =
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let taken = served.lock().unwrap().take(method, path, serde_json::from_str(&body).unwrap_or_default());
            let answer = match taken {
                Ok(()) => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                Err(fault) => {
                    let body = json!({ "fault_message": fault }).to_string();
                    format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                }
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (folder, Api::new(&socket), contract)
}

fn spec() -> MachineSpec {
    MachineSpec {
        id: MachineId::generate(),
        dir: "/m".into(),
        kernel: Kernel { image: "/k".into(), initramfs: Some("/i".into()), command_line: Vec::new() },
        root: Disk { bandwidth: Some(RateLimit { per_second: 1000, burst: 500 }), ..Disk::raw("/m/root") },
        data: Some(Disk::raw("/m/data")),
        memory_mib: 256,
        vcpus: 2,
        network: None,
        processes: None,
    }
}

#[tokio::test]
async fn a_machine_is_set_up_started_frozen_saved_and_let_go_on() {
    let (_folder, api, contract) = peer().await;
    boot(&api, &spec(), false).await.unwrap();
    let early = save(&api, Saving::Full, "snapshot", "memory").await;
    assert!(matches!(early, Err(VmmError::Refused { message, .. }) if message.contains("running")));
    run(&api, false).await.unwrap();
    save(&api, Saving::Full, "snapshot", "memory").await.unwrap();
    run(&api, true).await.unwrap();
    let contract = contract.lock().unwrap();
    assert_eq!(contract.phase, Phase::Running);
    let given = |path: &str| contract.given.iter().find(|(given, _)| given == path).unwrap().1.clone();
    assert_eq!(given("/drives/root")["path_on_host"], ROOT);
    assert_eq!(given("/drives/root")["rate_limiter"]["bandwidth"]["one_time_burst"], 500);
    assert!(given("/drives/data").get("rate_limiter").is_none());
    let line = given("/boot-source")["boot_args"].as_str().unwrap().to_owned();
    assert!(line.contains("8250.nr_uarts=0") && line.contains("emergent.data=/dev/vdb"), "{line}");
}

#[tokio::test]
async fn what_was_saved_is_loaded_into_a_process_that_was_told_nothing_else() {
    let (_folder, api, contract) = peer().await;
    load(&api, &spec(), "/s/snapshot", "/s/memory").await.unwrap();
    assert_eq!(contract.lock().unwrap().given.len(), 1);
    assert_eq!(contract.lock().unwrap().given[0].1["resume_vm"], true);
    assert!(matches!(boot(&api, &spec(), false).await, Err(VmmError::Refused { .. })));
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_silence() {
    let folder = tempfile::tempdir().unwrap();
    let api = Api::new(&folder.path().join("none"));
    assert!(matches!(api.describe().await, Err(VmmError::Silent { vmm: crate::VmmKind::Firecracker, .. })));
}
