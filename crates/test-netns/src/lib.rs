//! Network namespaces for tests, and operations inside them. Takes root and `ip`.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The time that an answer may take: everything here is on one machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// An address of the internet, its service's port, and its view of the host.
pub const INTERNET: &str = "198.51.100.7:7000";
/// The host's address on its way to the internet.
pub const HOST_AS_SEEN: &str = "203.0.113.1";
/// The port of the host's own service.
pub const HOST_PORT: u16 = 7001;
/// Addresses that the internet's service has, too, and that no guest is to reach.
pub const DENIED: [&str; 6] = [
    "10.99.0.1:7000",
    "10.99.0.2:7000",
    "172.20.0.1:7000",
    "192.168.77.1:7000",
    "169.254.169.254:7000",
    "100.64.0.1:7000",
];

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed when dropped.
pub struct Space {
    /// The name, as `ip netns` says it.
    pub name: String,
}

/// A host, and an internet beyond its only interface. Both serve a port: see [`Space::serve`].
pub struct Site {
    /// The host.
    pub host: Space,
    /// The internet.
    pub internet: Space,
}

/// The reason why no namespace can be made here, or none with these programs, where that is so. Each program is tried
/// with its argument.
pub fn why_missing(programs: &[(&str, &str)]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    for (program, argument) in [("ip", "-V")].iter().chain(programs) {
        if Command::new(program).arg(argument).output().is_err() {
            return Some(format!("there is no {program}"));
        }
    }
    std::fs::metadata("/dev/net/tun").err().map(|error| format!("/dev/net/tun: {error}"))
}

// === impl Site ===

impl Site {
    /// Makes the host and the internet.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn make() -> anyhow::Result<Self> {
        let (host, internet) = (Space::make("host")?, Space::make("internet")?);
        host.ip(&format!("link add up0 type veth peer name up1 netns {}", internet.name))?;
        host.ip(&format!("addr add {HOST_AS_SEEN}/24 dev up0"))?;
        host.ip("link set up0 up")?;
        internet.ip("addr add 203.0.113.2/24 dev up1")?;
        internet.ip("link set up1 up")?;
        for address in DENIED.iter().chain([&INTERNET]) {
            let (address, _) = address.split_once(':').context("an address")?;
            internet.ip(&format!("addr add {address}/32 dev lo"))?;
        }
        host.ip("route add default via 203.0.113.2")?;
        internet.serve(7000)?;
        host.serve(HOST_PORT)?;
        Ok(Self { host, internet })
    }
}

// === impl Space ===

impl Space {
    /// Makes a namespace; its name says what it is for.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn make(role: &str) -> anyhow::Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let space = Self { name: format!("emt-{}-{number}-{role}", std::process::id()) };
        run("ip", &["netns", "add", &space.name])?;
        space.ip("link set lo up")?;
        Ok(space)
    }

    /// Runs `ip` in the namespace; returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        let mut words = vec!["-n", &self.name];
        words.extend(arguments.split(' '));
        run("ip", &words)
    }

    /// Runs a program in the namespace; returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, command: &str) -> anyhow::Result<String> {
        let mut words = vec!["netns", "exec", &self.name];
        words.extend(command.split(' '));
        run("ip", &words)
    }

    /// Runs a function in the namespace, on a thread of its own, since a namespace is a thread's.
    ///
    /// # Errors
    /// When the thread cannot enter the namespace, or panics.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let space = File::open(format!("/run/netns/{}", self.name)).context("opening the namespace")?;
        let worker = thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).map(|()| work())
        });
        Ok(worker.join().map_err(|_| anyhow::anyhow!("the work in the namespace failed"))??)
    }

    /// Runs a future in the namespace, and all that the future starts: sockets and processes are the namespace's.
    ///
    /// # Errors
    /// When the thread cannot enter the namespace, or the future fails.
    pub fn block_on<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>>,
    {
        // One thread, which is in the namespace; those for blocking work are its children, and so are they.
        self.inside(move || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work()))?
    }

    /// Serves a port: tells everybody who connects what their address is, once they have said all they want to. Ends
    /// with the test program.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn serve(&self, port: u16) -> anyhow::Result<()> {
        let listener = self.inside(move || TcpListener::bind(("0.0.0.0", port)))??;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let peer = stream.peer_addr()?;
                    std::io::copy(&mut stream, &mut std::io::sink())?;
                    stream.write_all(peer.ip().to_string().as_bytes())
                });
            }
        });
        Ok(())
    }

    /// Connects to an address, sends `bytes` zeros, and returns the client's address that the other side sees.
    ///
    /// # Errors
    /// When no connection comes about within `patience`.
    pub fn send(&self, to: &str, bytes: usize, patience: Duration) -> anyhow::Result<String> {
        let to: SocketAddr = to.parse()?;
        self.inside(move || {
            let mut stream = TcpStream::connect_timeout(&to, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(&vec![0; bytes])?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut heard = String::new();
            stream.read_to_string(&mut heard)?;
            anyhow::Ok(heard)
        })?
    }

    /// The same, without sending anything.
    ///
    /// # Errors
    /// When no connection comes about.
    pub fn reach(&self, to: &str) -> anyhow::Result<String> {
        self.send(to, 0, PATIENCE)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // What uses it still keeps it alive without its name; a test that failed has said so already.
        run("ip", &["netns", "del", &self.name]).ok();
    }
}

/// Runs a program that must succeed; returns its output.
///
/// # Errors
/// When the program fails, with its standard error.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8(output.stdout)?)
}
