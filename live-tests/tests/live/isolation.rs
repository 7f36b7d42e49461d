//! The attempts of an attacker inside a workspace, all of which fail.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use emergent_live_tests::{Case, Runtime, Server, ServerOptions, api::WORKSPACES};
use serde_json::json;
use tokio::net::TcpListener;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("the_guest_socket_is_not_for_the_agent", the_guest_socket_is_not_for_the_agent),
        Case::new("privileges_are_few", privileges_are_few),
        Case::new("no_ring_and_no_socket_leads_past_the_limits", no_ring_and_no_socket_leads_past_the_limits),
        Case::new("limits_are_seen_by_the_engine", limits_are_seen_by_the_engine),
        Case::new("no_network_means_loopback_only", no_network_means_loopback_only),
        Case::new("the_host_and_private_ranges_are_out_of_reach", the_host_and_private_ranges_are_out_of_reach),
        Case::new("another_workspace_is_out_of_reach", another_workspace_is_out_of_reach),
        Case::new("a_secret_in_the_environment_is_not_shown", a_secret_in_the_environment_is_not_shown),
    ]
}

async fn the_guest_socket_is_not_for_the_agent(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let attempt = "/.emergent/emergent-guest connect </dev/null; echo code $?; \
        touch /.emergent/x; echo code $?; rm -f /var/lib/emergent/output/*; find /var/lib/emergent/output -type f | wc -l";
    let seen = server.api.bash(&id, attempt).await?;
    ensure!(!seen.contains("code 0"), "{seen}");
    ensure!(!seen.trim_end().ends_with("\n0"), "the agent removed the outputs: {seen}");
    Ok(())
}

async fn privileges_are_few(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true })).await?;
    let host = server.engine.inspect(&id).await?.host_config.context("no host configuration")?;
    ensure!(host.privileged != Some(true), "privileged");
    ensure!(host.cap_drop == Some(vec!["ALL".to_owned()]), "{:?}", host.cap_drop);
    ensure!(host.security_opt.unwrap_or_default().iter().any(|option| option.starts_with("no-new-privileges")));

    // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, KILL 5, SETGID 6, SETUID 7.
    let allowed: u64 = 0b1110_1011;
    let command = json!({ "command": "grep CapBnd /proc/self/status", "user": "root" });
    let bounding = server.api.tool(&id, "bash", command).await?.success()?;
    let bounding = bounding["stdout"].as_str().and_then(|line| line.split_whitespace().last()).context("no CapBnd")?;
    ensure!(u64::from_str_radix(bounding, 16)? & !allowed == 0, "capabilities {bounding}");
    // gVisor lets root make a device node, which leads nowhere.
    let escapes = "mkdir /tmp/m && mount -t tmpfs none /tmp/m && exit 0; mknod /tmp/sda b 8 0 && head -c 1 /tmp/sda";
    let escape = json!({ "command": escapes, "user": "root" });
    let escape = server.api.tool(&id, "bash", escape).await?.success()?;
    ensure!(escape["exit_code"] != 0, "{escape}");
    Ok(())
}

/// A ring of io_uring holds files that no table of descriptors shows; a socket of the family vsock leads past all
/// networks.
async fn no_ring_and_no_socket_leads_past_the_limits(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "allow_root": true })).await?;
    let probe = "import ctypes, errno, os, socket
def tried(call):
    try:
        return call() or 'done'
    except OSError as error:
        return errno.errorcode[error.errno]
libc = ctypes.CDLL(None, use_errno=True)
def ring():
    if libc.syscall(425, 8, ctypes.create_string_buffer(256)) < 0:
        raise OSError(ctypes.get_errno(), '')
def contexts():
    if libc.syscall({'x86_64': 206, 'aarch64': 0}[os.uname().machine], 1, ctypes.create_string_buffer(8)) < 0:
        raise OSError(ctypes.get_errno(), '')
def wide():
    number = {'x86_64': 41, 'aarch64': 198}[os.uname().machine]
    if libc.syscall(number, ctypes.c_long((1 << 32) + 40), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), '')
for family in socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK:
    assert tried(lambda: socket.socket(family, socket.SOCK_DGRAM).close()) == 'done', family
socket.socketpair()
print(tried(ring), tried(contexts), tried(lambda: socket.socket(40, socket.SOCK_STREAM).close()), tried(wide),
    tried(lambda: socket.socket(16, socket.SOCK_DGRAM, 2).close()), tried(lambda: socket.socket(30, 2).close()))";
    for user in ["agent", "root"] {
        let command = json!({ "command": format!("python3 - <<'end'\n{probe}\nend"), "user": user });
        let seen = server.api.tool(&id, "bash", command).await?.success()?;
        let said = seen["stdout"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        let is_refused = |word: &&str| ["EPERM", "ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT"].contains(word);
        let [of_sandbox @ .., vsock, wide, netlink, tipc] = said.as_slice() else { bail!("{user}: {seen}") };
        // The family is 32 bits of an argument that has 64.
        ensure!([vsock, wide, netlink, tipc].into_iter().all(is_refused), "{user}: {seen}");
        // Rings and contexts of gVisor's are inside the sandbox, hide no file from the host, and take from nobody.
        ensure!(of_sandbox.iter().all(is_refused) || runtime == Runtime::Runsc, "{user}: {seen}");
    }
    let command = json!({ "command": "useradd -m somebody && su -c 'id -un' somebody", "user": "root" });
    let added = server.api.tool(&id, "bash", command).await?.success()?;
    ensure!(added["stdout"] == "somebody\n", "accounts are made without an audit log: {added}");
    if runtime == Runtime::Runc && cfg!(target_arch = "x86_64") {
        // The calls of 32-bit programs, where the family of a socket may be in memory.
        let probe = "#include <stdio.h>
#include <sys/mman.h>
static long call(long nr, long a, long b, long c) {
    long answer;
    asm volatile(\"int $0x80\" : \"=a\"(answer) : \"a\"(nr), \"b\"(a), \"c\"(b), \"d\"(c) : \"memory\");
    return answer;
}
int main(void) {
    int *vsock = mmap(0, 4096, 3, MAP_32BIT | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    vsock[0] = 40, vsock[1] = 1;
    printf(\"%d %d %d\", call(359, 1, 1, 0) > 0, call(359, 40, 1, 0) < 0, call(102, 1, (long)vsock, 0) < 0);
}";
        let compiled = format!("cd /tmp && gcc -w -x c - -o old <<'end' && ./old\n{probe}\nend");
        let said = server.api.bash(&id, &compiled).await?;
        ensure!(said == "1 1 1", "{said}");
    }
    Ok(())
}

async fn limits_are_seen_by_the_engine(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "resource_limits": { "cpu": 0.5, "memory": "256M", "pids": 200 } })).await?;
    let host = server.engine.inspect(&id).await?.host_config.context("no host configuration")?;
    let limits = (host.nano_cpus, host.memory, host.memory_swap);
    ensure!(limits == (Some(500_000_000), Some(256 << 20), Some(256 << 20)), "{limits:?}");
    match runtime {
        Runtime::Runsc => ensure!(server.api.bash(&id, "ulimit -u").await? == "200\n"),
        _ => ensure!(host.pids_limit == Some(200)),
    }
    Ok(())
}

async fn no_network_means_loopback_only(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = server.api.create(json!({ "network": "none" })).await?;
    let interfaces = server.api.bash(&id, "cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '").await?;
    ensure!(interfaces.split_whitespace().all(|name| name == "lo"), "{interfaces}");
    Ok(())
}

/// Whether a TCP connection from a workspace to an address is made. The attempt is cut off after a second.
async fn reaches(server: &Server, id: &str, address: IpAddr, port: u16) -> anyhow::Result<bool> {
    let command = format!("timeout 1 bash -c '</dev/tcp/{address}/{port}'");
    let result = server.api.tool(id, "bash", json!({ "command": command })).await?.success()?;
    Ok(result["exit_code"] == 0)
}

/// The workspace's own address on its bridge, and its gateway's.
async fn address_of(server: &Server, id: &str) -> anyhow::Result<(IpAddr, IpAddr)> {
    let networks = server.engine.inspect(id).await?.network_settings.and_then(|settings| settings.networks);
    let network = networks.and_then(|networks| networks.into_values().next()).context("no network")?;
    let address = network.ip_address.context("no address")?.parse().context("the workspace's address")?;
    let gateway = network.gateway.filter(|gateway| !gateway.is_empty());
    let gateway = gateway.map_or(Ok(address), |gateway| gateway.parse()).context("the gateway's address")?;
    Ok((address, gateway))
}

async fn the_host_and_private_ranges_are_out_of_reach(runtime: Runtime) -> anyhow::Result<()> {
    // The machine's own addresses are reached only where nothing filters; a listener there shows it.
    let listener = TcpListener::bind("0.0.0.0:0").await.context("listening on the host")?;
    let port = listener.local_addr()?.port();
    let accepted = tokio::spawn(async move { while listener.accept().await.is_ok() {} });

    let server = Server::start(ServerOptions::on(runtime)).await?;
    for network in ["outbound", "isolated"] {
        let id = server.api.create(json!({ "network": network })).await?;
        let (_, gateway) = address_of(&server, &id).await?;
        ensure!(!reaches(&server, &id, gateway, port).await?, "{network}: the host is reached at {gateway}");
        ensure!(!reaches(&server, &id, "169.254.169.254".parse()?, 80).await?, "{network}: the metadata address");
        let rules = server.api.get(&format!("{WORKSPACES}/providers")).await?.success()?;
        ensure!(rules.to_string().contains("\"network_filter\":true"), "no filter is set here: {rules}");
    }
    accepted.abort();
    Ok(())
}

async fn another_workspace_is_out_of_reach(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let (listening, attacker) = (server.api.create_default().await?, server.api.create_default().await?);
    let serve = json!({ "command": "python3 -m http.server 8000", "execution_id": "server" });
    server.api.post(&format!("{WORKSPACES}/{listening}/processes"), serve).await?.success()?;
    let local = "127.0.0.1".parse()?;
    emergent_live_tests::until("the server listens", Duration::from_secs(20), || async {
        Ok(reaches(&server, &listening, local, 8000).await?.then_some(()).ok_or_else(|| "refused".to_owned()))
    })
    .await?;
    let (address, _) = address_of(&server, &listening).await?;
    ensure!(!reaches(&server, &attacker, address, 8000).await?, "another workspace is reached at {address}");
    Ok(())
}

async fn a_secret_in_the_environment_is_not_shown(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let secret = "hunter2-in-a-workspace";
    let id = server.api.create(json!({ "environment": { "PASSWORD": secret } })).await?;
    ensure!(server.api.bash(&id, "echo $PASSWORD").await? == format!("{secret}\n"));
    let shown = server.api.workspace(&id).await?.to_string();
    ensure!(!shown.contains(secret), "the API shows it: {shown}");
    ensure!(!server.log().contains(secret), "the log shows it");
    let inspected = format!("{:?}", server.engine.inspect(&id).await?);
    ensure!(!inspected.contains(secret), "the engine shows it");
    for file in ["emergent.sqlite", "emergent.sqlite-wal"] {
        let rows = std::fs::read(server.data_dir().join(file)).unwrap_or_default();
        ensure!(!rows.windows(secret.len()).any(|window| window == secret.as_bytes()), "a row has it");
    }
    Ok(())
}
