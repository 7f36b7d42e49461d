//! A host with a helper, and an internet beyond it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use emergent_microvm_net::{
    AttachRequest, MachineId, MachineNetwork as _, NetworkClient, NetworkConfig, NetworkError, NetworkStep, Networks,
    TapInterface,
    helper::{Helper, HelperConfig, keep_only_net_admin},
};
use emergent_test_netns::{Site, Space, run};
use emergent_types::NetworkPolicy;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::guest::Guest;

/// The word with which this program is the helper.
pub(crate) const HELPER: &str = "act-as-helper";
/// Whom the helper runs as and serves: nobody in particular.
pub(crate) const USER: u32 = 64123;
const START: Duration = Duration::from_secs(20);

/// How the helper is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) pool: Option<&'static str>,
    pub(crate) allow: Option<&'static str>,
    pub(crate) fault: Option<NetworkStep>,
}

pub(crate) struct World {
    pub(crate) host: Space,
    pub(crate) internet: Space,
    pub(crate) client: NetworkClient,
    pub(crate) runtime: Runtime,
    directory: TempDir,
    helper: Option<Child>,
}

impl World {
    pub(crate) fn make(options: &Options) -> anyhow::Result<Self> {
        let Site { host, internet } = Site::make()?;
        let directory = tempfile::tempdir()?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let client = NetworkClient::new(&directory.path().join("net.sock"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut world = Self { host, internet, client, runtime, directory, helper: None };
        world.start_helper(options)?;
        Ok(world)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("net.sock")
    }

    /// Starts the helper, instead of one that runs.
    pub(crate) fn start_helper(&mut self, options: &Options) -> anyhow::Result<()> {
        self.end_helper();
        // On the host of the tests only root may open the device. Here everybody may, as on most hosts.
        let script = "mount -t tmpfs none \"$0\" && mknod -m 666 \"$0/tun\" c 10 200 && \
                      mount --bind \"$0/tun\" /dev/net/tun && exec \"$@\"";
        let place = self.directory.path().join("dev");
        std::fs::create_dir_all(&place)?;
        let child = Command::new("ip")
            .args(["netns", "exec", &self.host.name, "sh", "-c", script])
            .arg(place)
            .arg(std::env::current_exe()?)
            .arg(HELPER)
            .arg(self.socket())
            .args([options.pool.unwrap_or("10.201.0.0/16"), options.allow.unwrap_or("-")])
            .arg(options.fault.map_or("-", NetworkStep::name))
            .stdin(Stdio::null())
            .spawn()?;
        self.helper = Some(child);
        let deadline = Instant::now() + START;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if Instant::now() > deadline {
                bail!("the helper does not listen");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The helper's process.
    pub(crate) fn helper_id(&self) -> Option<u32> {
        self.helper.as_ref().map(Child::id)
    }

    pub(crate) fn end_helper(&mut self) {
        if let Some(mut helper) = self.helper.take() {
            helper.kill().ok();
            helper.wait().ok();
        }
    }

    pub(crate) fn attach(&self, number: u128, policy: NetworkPolicy) -> Result<Option<TapInterface>, NetworkError> {
        self.runtime.block_on(self.client.attach(&AttachRequest::new(machine(number), policy, USER)))
    }

    pub(crate) fn detach(&self, number: u128) -> Result<(), NetworkError> {
        self.runtime.block_on(self.client.detach(machine(number)))
    }

    /// A machine that runs.
    pub(crate) fn boot(&self, number: u128, policy: NetworkPolicy) -> anyhow::Result<Guest> {
        Guest::boot(&self.host, self.attach(number, policy)?.context("an interface")?)
    }

    /// Our interfaces on the host, by the kernel's word.
    pub(crate) fn taps(&self) -> anyhow::Result<Vec<String>> {
        let listing = self.host.ip("-o link show")?;
        let names = listing.lines().filter_map(|line| line.split(": ").nth(1));
        Ok(names.filter(|name| name.starts_with("emv")).map(str::to_owned).collect())
    }

    /// The packet filter of the host, by the kernel's word.
    pub(crate) fn rules(&self) -> anyhow::Result<String> {
        self.host.run("nft list ruleset")
    }

    /// Fails where anything of ours is left on the host.
    pub(crate) fn expect_nothing_left(&self) -> anyhow::Result<()> {
        let (taps, rules) = (self.taps()?, self.rules()?);
        anyhow::ensure!(taps.is_empty() && !rules.contains("emergent"), "left: {taps:?}\n{rules}");
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end_helper();
    }
}

pub(crate) fn machine(number: u128) -> MachineId {
    MachineId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | number))
}

/// The helper's main function: the library's, with the arguments that [`World::start_helper`] gives.
pub(crate) fn run_helper(arguments: &[String]) -> ExitCode {
    let serve = || -> anyhow::Result<()> {
        let [socket, pool, allow, fault] = arguments else { bail!("socket, pool, allowed range, fault") };
        let given = |word: &str| (word != "-").then(|| word.to_owned());
        let config = NetworkConfig {
            pool: pool.parse()?,
            allow: given(allow).map(|range| range.parse()).transpose()?.into_iter().collect(),
            resolvers: Vec::new(),
            fault: given(fault).map(|step| step.parse()).transpose()?,
        };
        let helper = Helper::listen(socket.as_ref())?;
        keep_only_net_admin(Some(USER.to_string().parse()?))?;
        let served = HelperConfig { users: [USER].into(), owners: Vec::new() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(runtime.block_on(helper.serve(Networks::new(config), served, std::future::pending()))?)
    };
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The user that a process of the host's has for an interface.
pub(crate) fn owner_of(host: &Space, tap: &str) -> anyhow::Result<String> {
    let owner = run("ip", &["netns", "exec", &host.name, "cat", &format!("/sys/class/net/{tap}/owner")])?;
    Ok(owner.trim().to_owned())
}
