//! The reason why a container under gVisor has ended, where the engine does not tell.

use std::{fs, io::Read as _, os::unix::fs::OpenOptionsExt as _};

use emergent_provider::ExitReason;

/// The kernel's message, up to the control group's name, that a control group has refused a task for the first time.
const FORK_REJECTED: &str = "fork rejected by pids controller in ";
/// The most of the kernel's log that is read.
const KERNEL_LOG: usize = 8 << 20;
/// The exit code of gVisor's program when its host refuses it something that it cannot do without.
const GVISOR_FAILED: i64 = 2;

/// Returns the reason for which a container under gVisor ended with this code: gVisor itself fails when the container's
/// limit on tasks refuses it one, which only the kernel's log then tells.
pub(crate) fn reason_of(code: i64, container: &str) -> ExitReason {
    let rejected = code == GVISOR_FAILED
        && kernel_log().is_some_and(|log| {
            log.lines().any(|line| line.split_once(FORK_REJECTED).is_some_and(|(_, group)| group.contains(container)))
        });
    if rejected { ExitReason::ProcessLimit } else { ExitReason::Code(code) }
}

/// The kernel's log, where this process may read it.
fn kernel_log() -> Option<String> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).ok()?;
    let mut file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/kmsg").ok()?;
    let (mut log, mut record) = (Vec::new(), [0; 8 * 1024]);
    // Each read answers one record; there are no more once it would block. A record that was overwritten is skipped.
    while log.len() < KERNEL_LOG {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => log.extend_from_slice(&record[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    Some(String::from_utf8_lossy(&log).into_owned())
}
