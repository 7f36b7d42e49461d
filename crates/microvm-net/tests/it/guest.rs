//! A machine on a TAP: a namespace, and a loop that carries frames as a VMM would.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use emergent_microvm_net::{TapInterface, open_tap};
use emergent_test_netns::Space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const BUSY: Duration = Duration::from_secs(5);

pub(crate) struct Guest {
    pub(crate) space: Space,
    pub(crate) tap: TapInterface,
    ending: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Guest {
    /// Boots a machine on an interface of the host.
    pub(crate) fn boot(host: &Space, tap: TapInterface) -> anyhow::Result<Self> {
        let space = Space::make("guest")?;
        let outer = open(host, &tap)?;
        let inner = open(&space, &tap)?;
        let ending = Arc::new(AtomicBool::new(false));
        let until = ending.clone();
        let carrier = thread::spawn(move || carry(outer, inner, &until));
        let guest = Self { space, tap, ending, carrier: Some(carrier) };
        guest.space.ip(&format!("addr add {}/30 dev {}", guest.tap.subnet.guest(), guest.tap.name))?;
        guest.set_mac(&guest.tap.mac.to_string())?;
        Ok(guest)
    }

    /// Gives the machine's card another address.
    pub(crate) fn set_mac(&self, mac: &str) -> anyhow::Result<()> {
        let name = &self.tap.name;
        self.space.ip(&format!("link set {name} down"))?;
        self.space.ip(&format!("link set {name} address {mac}"))?;
        self.space.ip(&format!("link set {name} up"))?;
        self.space.ip(&format!("route replace default via {}", self.tap.subnet.gateway()))?;
        Ok(())
    }

    pub(crate) fn reach(&self, to: &str) -> anyhow::Result<String> {
        self.space.reach(to)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            carrier.join().ok();
        }
    }
}

/// Opens the interface, or in a namespace that has none of the name makes one. A program that another test starts
/// holds what was open here before for as long as it takes to become itself.
fn open(space: &Space, tap: &TapInterface) -> anyhow::Result<File> {
    let name = tap.name.clone();
    space.inside(move || {
        let deadline = Instant::now() + BUSY;
        loop {
            match open_tap(&name) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                ended => return Ok(File::from(ended?)),
            }
        }
    })?
}

fn carry(mut outer: File, mut inner: File, ending: &AtomicBool) {
    let mut frame = vec![0; 1 << 17];
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !ending.load(Ordering::Relaxed) {
        let mut ends = [PollFd::new(&outer, PollFlags::IN), PollFd::new(&inner, PollFlags::IN)];
        if poll(&mut ends, Some(&tick)).is_err() {
            continue;
        }
        let [from_outer, from_inner] = ends.map(|end| end.revents().contains(PollFlags::IN));
        // An interface that is down takes and gives nothing; the frame is lost, as on a cable that is not plugged in.
        if from_outer && let Ok(length) = outer.read(&mut frame) {
            inner.write_all(&frame[..length]).ok();
        }
        if from_inner && let Ok(length) = inner.read(&mut frame) {
            outer.write_all(&frame[..length]).ok();
        }
        // Gone, because the interface was removed beneath us.
        if ends_are_gone(&outer) {
            return;
        }
    }
}

fn ends_are_gone(outer: &File) -> bool {
    let mut end = [PollFd::from_borrowed_fd(outer.as_fd(), PollFlags::empty())];
    poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && end[0].revents().contains(PollFlags::ERR)
}
