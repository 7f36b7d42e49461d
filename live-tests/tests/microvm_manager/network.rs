//! Machines on real interfaces: a manager without privileges, the helper that has one, a host and an internet, each a
//! network namespace.

use std::{
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Machines, Manager, manager::small, microvm, server::program, until};
use emergent_test_netns::{DENIED, HOST_AS_SEEN, HOST_PORT, INTERNET, Site};
use serde_json::json;
use tempfile::TempDir;

/// The user ids of the manager and of the helper; nobody else has them.
const MANAGER: u32 = 64124;
const HELPER: u32 = 64125;

/// The script that opens the device to everybody, as on most hosts; on the host of the tests it is root's.
const OPEN_DEVICE: &str = "mkdir \"$0\" && mount -t tmpfs none \"$0\" && mknod -m 666 \"$0/tun\" c 10 200 && \
                           mount --bind \"$0/tun\" /dev/net/tun && exec \"$@\"";

/// Connects to each address, and prints the client's address that it hears there.
const ASK: &str = "
import socket, sys
for address in sys.argv[1:]:
    host, port = address.rsplit(':', 1)
    try:
        stream = socket.create_connection((host, int(port)), 4)
        stream.shutdown(socket.SHUT_WR)
        print(address, stream.recv(100).decode() or 'nothing')
    except OSError:
        print(address, 'unreachable')
";

pub(crate) fn cases() -> Vec<Case> {
    let missing = why_missing();
    let cases = [
        Case::new("machines_reach_what_they_may_and_leave_no_interface", |_| {
            at_a_site("emergent", reach_what_they_may)
        }),
        Case::new("the_script_walks_through_a_service_without_privileges", |_| at_a_site("emergent", script)),
    ];
    cases.into_iter().map(|case| case.skipped_because(missing.clone())).collect()
}

/// A manager and its helper, as they are run on a host.
struct Service {
    manager: Manager,
    _helper: Helper,
}

/// The helper's process, ended when it is dropped.
struct Helper {
    child: Child,
    directory: TempDir,
}

fn why_missing() -> Option<String> {
    if let Some(reason) = emergent_test_netns::why_missing(&[("nft", "--version"), ("setpriv", "--version")]) {
        return Some(reason);
    }
    let needed = [program("emergent").ok()?, microvm::prepared()?.join("kernels/default-vmlinux.bin")];
    let unread = needed.iter().find(|file| {
        let read = Command::new("setpriv").args(as_user(MANAGER)).args(["test", "-r"]).arg(file).status();
        !read.is_ok_and(|status| status.success())
    })?;
    Some(format!("only its owner can read {}; put the project where others may read it", unread.display()))
}

/// Does something in a host's namespace; no interface of ours, and no filter rule of such a name, may be left
/// afterwards.
pub(crate) async fn at_a_site<F>(rule: &'static str, work: fn() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + 'static,
{
    let done = tokio::task::spawn_blocking(move || {
        let site = Site::make()?;
        site.host.block_on(work)?;
        let (links, rules) = (site.host.ip("-o link show")?, site.host.run("nft list ruleset")?);
        ensure!(!links.contains("emv") && !rules.contains(rule), "left:\n{links}\n{rules}");
        anyhow::Ok(())
    });
    done.await?
}

// === impl Service ===

impl Service {
    /// Starts both in the namespace of the caller.
    async fn start() -> anyhow::Result<Self> {
        let helper = Helper::start().await?;
        let (socket, device) = (helper.socket(), helper.directory.path().join("manager-dev"));
        let mut starter = with_device(&device);
        starter.push("setpriv".to_owned());
        starter.extend(as_user(MANAGER));
        let socket = socket.to_str().context("a path in UTF-8")?;
        let variables = [("FIRECRACKER_NETWORK", socket)];
        let manager = Manager::start_under(Machines::of_user(MANAGER)?, starter, &variables).await?;
        Ok(Self { manager, _helper: helper })
    }

    /// Makes a small sandbox with a network.
    async fn create(&self, network: &str) -> anyhow::Result<String> {
        let mut body = small();
        body["network"] = json!(network);
        let made = self.manager.done("POST /sandboxes", Some(body)).await?;
        Ok(made["sandbox_id"].as_str().context("a sandbox has an id")?.to_owned())
    }

    /// The addresses that others see a sandbox at, in the order of `addresses`; `unreachable` where it has no
    /// connection.
    async fn seen_as(&self, sandbox: &str, addresses: &[String]) -> anyhow::Result<Vec<String>> {
        let command = format!("python3 - {} <<'END'{ASK}END", addresses.join(" "));
        let printed = self.manager.run(sandbox, &command).await?;
        Ok(printed.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect())
    }

    async fn reaches_the_internet(&self, sandbox: &str) -> anyhow::Result<()> {
        let seen = self.seen_as(sandbox, &[INTERNET.to_owned()]).await?;
        ensure!(seen == [HOST_AS_SEEN], "the internet sees {seen:?}");
        Ok(())
    }

    async fn address_of(&self, sandbox: &str) -> anyhow::Result<String> {
        let addresses = self.manager.run(sandbox, "hostname -I").await?;
        Ok(addresses.split_whitespace().next().context("it has no address")?.to_owned())
    }
}

// === impl Helper ===

impl Helper {
    /// Starts the helper as the page says, and waits until it listens.
    async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let mut words = with_device(&directory.path().join("helper-dev")).into_iter();
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words).arg(program("emergent")?).args(["firecracker", "net-helper"]);
        command.arg("--socket").arg(directory.path().join("net.sock"));
        command.args(["--allow-uid", &MANAGER.to_string(), "--user", &HELPER.to_string(), "--log", "warn"]);
        let helper = Self { child: command.stdin(Stdio::null()).spawn().context("starting the helper")?, directory };
        until("the helper listens", Duration::from_secs(20), || async {
            Ok(UnixStream::connect(helper.socket()).map(drop).map_err(|error| error.to_string()))
        })
        .await?;
        Ok(helper)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("net.sock")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The command line that opens the device of interfaces and then becomes the command after it.
fn with_device(place: &Path) -> Vec<String> {
    let place = place.display().to_string();
    ["unshare", "--mount", "sh", "-c", OPEN_DEVICE, &place].map(str::to_owned).to_vec()
}

/// The options with which `setpriv` becomes a user without any privilege.
fn as_user(user: u32) -> Vec<String> {
    vec![format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]
}

async fn reach_what_they_may() -> anyhow::Result<()> {
    let mut service = Service::start().await?;
    let (one, other) = tokio::try_join!(service.create("outbound"), service.create("outbound"))?;
    service.reaches_the_internet(&one).await?;

    service.manager.run(&other, "nohup python3 -m http.server 8000 >/dev/null 2>&1 &").await?;
    until("the other's server answers", Duration::from_secs(60), || async {
        let asked = service.seen_as(&other, &["127.0.0.1:8000".to_owned()]).await?;
        Ok(if asked == ["unreachable"] { Err(format!("{asked:?}")) } else { Ok(()) })
    })
    .await?;
    let (address, others) = (service.address_of(&one).await?, service.address_of(&other).await?);
    // Each has four addresses, of which the host's comes before its own.
    let (range, last) = address.rsplit_once('.').context("an address")?;
    let gateway = format!("{range}.{}", last.parse::<u8>()? - 1);
    let host = [gateway, HOST_AS_SEEN.to_owned()].map(|host| format!("{host}:{HOST_PORT}"));
    let denied = DENIED.map(str::to_owned).into_iter().chain(host).chain([format!("{others}:8000")]);
    let denied: Vec<_> = denied.collect();
    let reached = service.seen_as(&one, &denied).await?;
    ensure!(
        reached.len() == denied.len() && reached.iter().all(|seen| seen == "unreachable"),
        "{denied:?}: {reached:?}"
    );

    // Its interface is there again in another process, and a fork has one of its own.
    service.manager.done(&format!("POST /sandboxes/{one}/pause"), None).await?;
    service.manager.done(&format!("POST /sandboxes/{one}/resume"), None).await?;
    service.reaches_the_internet(&one).await?;
    let fork = service.manager.done(&format!("POST /sandboxes/{one}/fork"), Some(json!({}))).await?;
    let fork = fork["sandbox_id"].as_str().context("a fork has an id")?;
    ensure!(service.address_of(fork).await? != address, "a fork has the address of its original");
    service.reaches_the_internet(fork).await?;
    service.reaches_the_internet(&one).await?;

    let isolated = service.create("isolated").await?;
    service.address_of(&isolated).await?;
    let seen = service.seen_as(&isolated, &[INTERNET.to_owned(), format!("{HOST_AS_SEEN}:{HOST_PORT}")]).await?;
    ensure!(seen == ["unreachable", "unreachable"], "{seen:?}");

    for sandbox in [&one, &other, fork, &isolated] {
        service.manager.done(&format!("DELETE /sandboxes/{sandbox}"), None).await?;
    }
    service.manager.terminate().await
}

async fn script() -> anyhow::Result<()> {
    let mut service = Service::start().await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-sandbox.sh");
    let mut command = tokio::process::Command::new(script);
    command.env("WORKSPACE_FIRECRACKER_URL", service.manager.url()).env_remove("WORKSPACE_FIRECRACKER_TOKEN");
    let output = command.kill_on_drop(true).output().await.context("starting the script")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.contains("All of it works."), "{out}\n{err}\n{}", service.manager.log());
    ensure!(service.manager.names("sandboxes")?.is_empty(), "the script leaves a sandbox");
    service.manager.terminate().await
}
