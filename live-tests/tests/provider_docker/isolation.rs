//! The resources that a sandbox may use and the networks that it may reach, seen from inside.

use anyhow::{Context as _, bail, ensure};
use emergent_guest_proto::RunAs;
use emergent_live_tests::{Case, Image, Runtime};
use emergent_provider::{
    Channels as _, CreateError, Inventory as _, Isolation, Lifecycle as _, Provider as _, SandboxSpec,
};
use emergent_types::{NetworkPolicy, SandboxId};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use crate::sandbox::{Bench, Sandbox, Unobserved, full, refused, spec};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("limits_hold_inside", limits),
        Case::new("root_inside_has_few_capabilities_and_gets_no_more", capabilities),
        Case::new("guests_reach_neither_host_nor_private_ranges_nor_each_other", network_matrix),
        Case::new("an_allowed_address_is_reached", allow_list),
        Case::new("the_packet_filter_is_set_again_when_it_is_lost", filter_comes_back),
        Case::new("a_runtime_that_is_too_weak_is_refused", too_weak),
        Case::new("the_engine_is_not_given_accounts_that_root_inside_made_large_or_no_file", accounts),
        Case::new("no_start_mounts_a_volume_where_a_link_leads", mount_points),
        Case::new("more_cores_than_there_are_are_refused_as_the_requests_fault", too_many_cores),
    ]
}

/// The engine's own process reads `/etc/passwd` and `/etc/group` of a container, without a bound.
async fn accounts(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let name = |word: &str| format!("accounts-{word}:{}", SandboxId::generate());
    let of_image = |image: &Image| {
        Ok::<_, anyhow::Error>(SandboxSpec { image: image.reference.parse()?, ..spec(NetworkPolicy::None)? })
    };
    let with_user = Image::with(&name("user"), "USER 1000")?;
    for (spec, user) in [(spec(NetworkPolicy::None)?, ""), (of_image(&with_user)?, "0:0")] {
        let sandbox = bench.sandbox(&spec).await?;
        let id = sandbox.workspace;
        let seen = bench.engine.inspect(&id.to_string()).await?.config.and_then(|config| config.user);
        ensure!(seen.unwrap_or_default() == user, "an exec reads nothing unless the container has a user");
        ensure!(sandbox.bash_as("id -u", RunAs::Root).await?.stdout.trim() == "0");
        sandbox.bash_as("cp /etc/passwd /etc/kept", RunAs::Root).await?;
        let mut all = vec![
            ("truncate -s 2M /etc/large; ln -s large /etc/passwd", "bytes long"),
            ("truncate -s 40M /etc/passwd", "bytes long"),
        ];
        // A pipe of gVisor's is in its memory, where the engine finds none.
        if runtime == Runtime::Runc {
            all.push(("mkfifo /etc/passwd", "no regular file"));
        }
        for (unfit, told) in &all {
            let put = sandbox.bash_as(&format!("rm /etc/passwd; {unfit}"), RunAs::Root).await?;
            ensure!(put.exit_code == Some(0), "{put:?}");
            let Err(error) = bench.provider.open(id).await else { bail!("{unfit}: a channel was opened") };
            let error = format!("{:#}", full(error));
            ensure!(error.contains("/etc/passwd") && error.contains(told), "{unfit}: {error}");
        }
        bench.provider.stop(id).await.map_err(full)?;
        let Err(error) = bench.provider.start(id).await else { bail!("{all:?}: the last one was left to the engine") };
        let error = format!("{:#}", full(error));
        ensure!(error.contains("/etc/passwd") && all.last().is_some_and(|(_, told)| error.contains(told)), "{error}");
        bench.provider.destroy(id, &Unobserved).await.map_err(full)?;
    }
    // What stops and comes back with small files opens channels as before, whatever group it says that root has.
    let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    let id = sandbox.workspace;
    let moved = "sed 's/^root:x:0:0:/root:x:0:1000:/' /etc/passwd >/etc/real && ln -sf real /etc/passwd";
    ensure!(sandbox.bash_as(moved, RunAs::Root).await?.exit_code == Some(0));
    bench.provider.stop(id).await.map_err(full)?;
    let channel = bench.provider.start(id).await.map_err(full)?;
    sandbox.guest.set_first_channel(channel.context("no channel from the start")?);
    ensure!(sandbox.output("grep ^Gid: /proc/1/status | tr -s '\\t' ' '").await? == "Gid: 0 0 0 0");
    drop(bench.provider.open(id).await.map_err(full)?);

    let large = Image::with(&name("large"), "USER root\nRUN truncate -s 2M /etc/group\nUSER 1000")?;
    let spec = of_image(&large)?;
    let error = refused(&bench.provider, &spec).await?;
    ensure!(matches!(&error, CreateError::StartFailed { reason, .. } if reason.contains("/etc/group")), "{error}");
    let left = bench.engine.resources_of(&spec.workspace.to_string()).await?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// Root inside, and the maker of an image, can put links on the way to what is mounted.
async fn mount_points(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let move_away = "mv /var/lib/emergent /var/lib/moved";
    // A volume over the guest's binary would have root's program started in its place; also in a copy.
    let hides = format!("{move_away} && mkdir /x && ln -s /.emergent /x/private && ln -s /x /var/lib/emergent");
    // The engine reads the file of the layer, not the one of the volume that is mounted there.
    let deceives = format!(
        "{move_away} && mkdir -p /var/lib/emergent/private && truncate -s 2M /var/lib/emergent/private/passwd && \
         cp /etc/passwd /var/lib/moved/private/ && ln -sf /var/lib/emergent/private/passwd /etc/passwd"
    );
    for (plant, told) in
        [(&hides, ["/var/lib/emergent/private", "/.emergent"]), (&deceives, ["/etc/passwd", "2097152"])]
    {
        let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
        let id = sandbox.workspace;
        let planted = sandbox.bash_as(plant, RunAs::Root).await?;
        ensure!(planted.exit_code == Some(0), "{planted:?}");
        bench.provider.stop(id).await.map_err(full)?;
        let Err(error) = bench.provider.start(id).await else { bail!("{plant}: the sandbox was started") };
        let error = format!("{:#}", full(error));
        ensure!(told.iter().all(|told| error.contains(told)), "{plant}: {error}");
        bench.provider.destroy(id, &Unobserved).await.map_err(full)?;
    }

    let of = |word: &str, lines: &str| Image::with(&format!("mounts-{word}:{}", SandboxId::generate()), lines);
    let of_image = |image: &Image| {
        Ok::<_, anyhow::Error>(SandboxSpec { image: image.reference.parse()?, ..spec(NetworkPolicy::None)? })
    };
    let hiding = of("hiding", "USER root\nRUN mkdir /x && ln -s /.emergent /x/y\nVOLUME /x/y")?;
    let hiding = of_image(&hiding)?;
    let error = refused(&bench.provider, &hiding).await?;
    let says = |reason: &str| reason.contains("/x/y") && reason.contains("/.emergent");
    ensure!(matches!(&error, CreateError::StartFailed { reason, .. } if says(reason)), "{error}");
    let left = bench.engine.resources_of(&hiding.workspace.to_string()).await?;
    ensure!(left.is_empty(), "left: {left:?}");

    // A link that hides nothing is followed, and a directory that was made anew has none of the old one's files.
    let lines =
        "USER root\nRUN mkdir -p /real/data && ln -s /real /link && mkdir /d && mkfifo /d/passwd\nVOLUME /link/data";
    let followed = of("followed", lines)?;
    let sandbox = bench.sandbox(&of_image(&followed)?).await?;
    let id = sandbox.workspace;
    let anew =
        "rm -r /d && mkdir /d && cp /etc/passwd /etc/kept && ln -sf /d/passwd /etc/passwd && echo in > /real/data/file";
    let done = sandbox.bash_as(anew, RunAs::Root).await?;
    ensure!(done.exit_code == Some(0), "{done:?}");
    bench.provider.stop(id).await.map_err(full)?;
    let channel = bench.provider.start(id).await.map_err(full)?;
    sandbox.guest.set_first_channel(channel.context("no channel from the start")?);
    ensure!(sandbox.output("cat /link/data/file").await? == "in");
    Ok(())
}

async fn too_many_cores(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    bench.provider.health().await;
    let cores = bench.provider.host_room().and_then(|room| room.cores).context("the engine is on this machine")?;
    let mut most = spec(NetworkPolicy::None)?;
    most.limits.cpu = f64::from(cores) + 1.0;
    let error = refused(&bench.provider, &most).await?;
    ensure!(matches!(error, CreateError::Unfit { .. }), "{:#}", full(error));
    Ok(())
}

async fn limits(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    let container = bench.engine.inspect(&sandbox.workspace.to_string()).await?;
    let host = container.host_config.unwrap_or_default();
    ensure!(host.memory == Some(512 << 20) && host.memory_swap == Some(512 << 20));
    ensure!(host.nano_cpus == Some(1_000_000_000));
    if runtime == Runtime::Runc {
        let memory = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
        ensure!(sandbox.output(memory).await? == (512 << 20).to_string());
        let pids = "cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max";
        ensure!(sandbox.output(pids).await? == "256");
    } else {
        let total: u64 = sandbox.output("awk '/MemTotal/ {print $2}' /proc/meminfo").await?.parse()?;
        ensure!(total <= 512 << 10, "the sandbox sees {total} KiB");
        // What is counted outside are the host's tasks, many for each process.
        ensure!(sandbox.output("ulimit -u").await? == "256");
        ensure!(host.pids_limit.is_some_and(|tasks| (256..=1 << 14).contains(&tasks)), "{:?}", host.pids_limit);
    }
    let mut most = spec(NetworkPolicy::None)?;
    most.limits.pids = 1_000_000;
    bench.sandbox(&most).await.context("as many processes as may be asked for")?;
    // Nothing that eats memory gets more than the limit; what lives on depends on the runtime.
    let eat = "python3 -c 'import sys; x = bytearray(2 << 30); print(len(x))' 2>&1; echo $?";
    if let Ok(result) = sandbox.bash(eat).await {
        ensure!(!result.stdout.contains("2147483648"), "{result:?}");
    }
    Ok(())
}

async fn capabilities(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let sandbox = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    let status = sandbox.bash_as("cat /proc/self/status", RunAs::Root).await?.stdout;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID.
    let allowed = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7;
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let Some(mask) = field(set) else { anyhow::bail!("no {set} in {status}") };
        let mask = u64::from_str_radix(mask, 16)?;
        ensure!(mask & !allowed == 0, "{set} is {mask:x}");
    }
    if let Some(no_new_privileges) = field("NoNewPrivs:") {
        ensure!(no_new_privileges == "1");
    }
    ensure!(sandbox.bash_as("mount -t tmpfs none /mnt", RunAs::Root).await?.exit_code != Some(0));
    Ok(())
}

/// Whether a TCP connection comes about, tried from inside.
async fn reaches(sandbox: &Sandbox, address: &str, port: u16) -> anyhow::Result<bool> {
    let connect = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
    Ok(sandbox.bash(&connect).await?.exit_code == Some(0))
}

/// The addresses of this host that a guest could route to.
fn host_addresses() -> anyhow::Result<Vec<String>> {
    let listing = std::process::Command::new("ip").args(["-4", "-o", "address", "show", "scope", "global"]).output()?;
    let listing = String::from_utf8(listing.stdout)?;
    let address = |line: &str| line.split_whitespace().nth(3)?.split('/').next().map(str::to_owned);
    Ok(listing.lines().filter_map(address).collect())
}

async fn network_matrix(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    // A server on every address of the host, to see that it is reached from outside and not from inside.
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let port = listener.local_addr()?.port();
    let accepting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(stream.write_all(b"hello").await);
        }
    });
    let hosts = host_addresses()?;
    ensure!(!hosts.is_empty(), "this host has no address");
    let serve = "python3 -m http.server 8000 >/dev/null 2>&1 & sleep 1; hostname -I";

    for policy in [NetworkPolicy::Outbound, NetworkPolicy::Isolated] {
        let (a, b) = (spec(policy)?, spec(policy)?);
        let (a, b) = tokio::try_join!(bench.sandbox(&a), bench.sandbox(&b))?;
        let health = bench.provider.health().await;
        ensure!(bench.provider.capabilities().network_filter, "{health:?}");
        ensure!(a.warnings.iter().all(|warning| !warning.starts_with("network:")), "{:?}", a.warnings);
        let other = address_of(&bench, &b).await?;
        b.bash(serve).await?;
        ensure!(reaches(&b, "127.0.0.1", 8000).await?, "the server inside is up");
        ensure!(!reaches(&a, &other, 8000).await?, "{policy:?}: another guest at {other} was reached");
        let gateway = other.rsplit_once('.').map(|(net, _)| format!("{net}.1")).unwrap_or_default();
        for host in hosts.iter().chain([&gateway]) {
            ensure!(!reaches(&a, host, port).await?, "{policy:?}: the host at {host} was reached");
        }
        for denied in ["169.254.169.254", "10.1.2.3", "172.16.0.9", "192.168.0.9", "100.64.0.9"] {
            let started = std::time::Instant::now();
            ensure!(!reaches(&a, denied, 80).await?, "{policy:?}: {denied} was reached");
            // Refused, not swallowed: an agent should not wait for nothing.
            ensure!(started.elapsed() < std::time::Duration::from_secs(3), "{policy:?}: {denied} was not refused");
        }
    }
    let alone = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    ensure!(!reaches(&alone, &hosts[0], port).await?);
    accepting.abort();
    Ok(())
}

async fn address_of(bench: &Bench, sandbox: &Sandbox) -> anyhow::Result<String> {
    let container = bench.engine.inspect(&sandbox.workspace.to_string()).await?;
    let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let address = networks.into_values().find_map(|network| network.ip_address);
    address.ok_or_else(|| anyhow::anyhow!("the sandbox has no address"))
}

async fn allow_list(runtime: Runtime) -> anyhow::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let port = listener.local_addr()?.port();
    let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let host = host_addresses()?.into_iter().next().ok_or_else(|| anyhow::anyhow!("this host has no address"))?;
    // A network of its own, so that its rules are its own.
    let network = format!("emergent-test-{}", emergent_types::SandboxId::generate());
    let outcome = async {
        let bench = Bench::with(runtime, |config| {
            config.network_name = Some(network.clone());
            config.network_allow = vec![format!("{host}/32").parse().unwrap()];
        })?;
        let sandbox = bench.sandbox(&spec(NetworkPolicy::Outbound)?).await?;
        ensure!(reaches(&sandbox, &host, port).await?, "{host} is allowed");
        ensure!(!reaches(&sandbox, "10.1.2.3", 80).await?);
        Ok(())
    };
    let outcome = outcome.await;
    accepting.abort();
    let inspected = bollard::Docker::connect_with_defaults()?.inspect_network(&network, None).await;
    drop(std::process::Command::new("docker").args(["network", "rm", &network]).output());
    let bridge = inspected.ok().and_then(|network| network.options?.remove("com.docker.network.bridge.name"));
    let suffix = bridge.as_deref().and_then(|bridge| bridge.strip_prefix("emg-")).unwrap_or("none");
    for family in ["inet", "bridge"] {
        let table = format!("emergent_{suffix}");
        drop(std::process::Command::new("nft").args(["delete", "table", family, &table]).output());
    }
    outcome
}

async fn filter_comes_back(runtime: Runtime) -> anyhow::Result<()> {
    let network = format!("emergent-test-{}", emergent_types::SandboxId::generate());
    let outcome = async {
        let bench = Bench::with(runtime, |config| config.network_name = Some(network.clone()))?;
        let health = bench.provider.health().await;
        ensure!(health.healthy && bench.provider.capabilities().network_filter, "{health:?}");
        let docker = bollard::Docker::connect_with_defaults()?;
        let options = docker.inspect_network(&network, None).await?.options.unwrap_or_default();
        let bridge = options.get("com.docker.network.bridge.name").cloned().unwrap_or_default();
        let table = bridge.replace("emg-", "emergent_");
        let nft = |arguments: &[&str]| std::process::Command::new("nft").args(arguments).output();
        for family in ["inet", "bridge"] {
            ensure!(nft(&["delete", "table", family, &table])?.status.success(), "{table}");
        }
        bench.provider.health().await;
        for family in ["inet", "bridge"] {
            ensure!(nft(&["list", "table", family, &table])?.status.success(), "{family} {table} did not come back");
            nft(&["delete", "table", family, &table])?;
        }
        Ok(())
    };
    let outcome = outcome.await;
    drop(std::process::Command::new("docker").args(["network", "rm", &network]).output());
    outcome
}

async fn too_weak(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::with(runtime, |config| config.require_isolation = Isolation::Hardware)?;
    let error = refused(&bench.provider, &spec(NetworkPolicy::None)?).await?;
    ensure!(error.to_string().contains("isolation hardware is required"), "{:#}", full(error));
    ensure!(!bench.provider.health().await.healthy);
    Ok(())
}
