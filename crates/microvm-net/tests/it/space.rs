//! Network namespaces, and what is done in them.

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

/// Everything here is on one machine: what takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(2);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed when dropped.
pub(crate) struct Space {
    pub(crate) name: String,
}

impl Space {
    pub(crate) fn make(role: &str) -> anyhow::Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let space = Self { name: format!("emt-{}-{number}-{role}", std::process::id()) };
        run("ip", &["netns", "add", &space.name])?;
        space.ip("link set lo up")?;
        Ok(space)
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        let mut words = vec!["-n", &self.name];
        words.extend(arguments.split(' '));
        run("ip", &words)
    }

    /// Runs a program in it.
    pub(crate) fn run(&self, command: &str) -> anyhow::Result<String> {
        let mut words = vec!["netns", "exec", &self.name];
        words.extend(command.split(' '));
        run("ip", &words)
    }

    /// Does something in it, on a thread of its own, since a namespace is a thread's.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let space = File::open(format!("/run/netns/{}", self.name)).context("opening the namespace")?;
        let worker = thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).map(|()| work())
        });
        Ok(worker.join().map_err(|_| anyhow::anyhow!("the work in the namespace failed"))??)
    }

    /// Serves a port: tells everybody who connects what their address is, once they have said all they want to. Ends
    /// with the test program.
    pub(crate) fn serve(&self, port: u16) -> anyhow::Result<()> {
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

    /// Connects from here, says `bytes` zeros, and hears what address the other side sees.
    pub(crate) fn send(&self, to: &str, bytes: usize, patience: Duration) -> anyhow::Result<String> {
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

    /// The same, saying nothing.
    pub(crate) fn reach(&self, to: &str) -> anyhow::Result<String> {
        self.send(to, 0, PATIENCE)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["netns", "del", &self.name]) {
            println!("{error:#}");
        }
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8(output.stdout)?)
}
