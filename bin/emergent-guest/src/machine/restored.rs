//! The changes after the machine was restored from a snapshot: its clock is in the past, its random numbers are those
//! of every other machine that was restored from the same snapshot, and its network is that of the machine that was
//! saved.

#![expect(unsafe_code, reason = "the kernel takes entropy by ioctl(2) only")]

use std::{fs::File, io, os::fd::AsRawFd as _};

use base64::Engine as _;
use emergent_guest_proto::{
    ErrorCode, GuestError,
    machine::{ENTROPY_BYTES, NetworkSettings, Restored},
};
use parking_lot::Mutex;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::{identity, network, settings::MachineSettings};
use crate::{credentials, failure::invalid, random::random_name};

/// The requests `_IOW('R', 3, int[2])` and `_IO('R', 7)` of random(4).
const ADD_ENTROPY: libc::c_ulong = 0x4008_5203;
const RESEED: libc::c_ulong = 0x5207;

/// The guest's record of the machine.
#[derive(Debug)]
pub struct Machine {
    /// The network settings that are in force.
    pub network: Mutex<Option<NetworkSettings>>,
}

impl Machine {
    /// Makes the record from the host's settings.
    pub fn new(settings: &MachineSettings) -> Self {
        Self { network: Mutex::new(settings.network.clone()) }
    }

    /// Adapts the machine to a restore. Repeatable. Returns a new id of the boot if the machine is a copy.
    ///
    /// # Errors
    /// The failed step; the machine must not be used then.
    pub async fn adapt(&self, restored: Restored) -> Result<Option<String>, GuestError> {
        let entropy = base64::engine::general_purpose::STANDARD.decode(&restored.entropy);
        let entropy = entropy.ok().filter(|bytes| ENTROPY_BYTES.contains(&bytes.len()));
        let entropy = entropy.ok_or_else(|| invalid("entropy", "between 32 and 512 bytes as base64 are needed"))?;
        let seconds =
            i64::try_from(restored.now_ms / 1000).map_err(|_| invalid("now_ms", "the time is out of range"))?;
        let now = Timespec { tv_sec: seconds, tv_nsec: i64::try_from(restored.now_ms % 1000).unwrap_or(0) * 1_000_000 };
        let before = self.network.lock().clone();
        if restored.machine_id.as_deref().is_some_and(|id| !identity::is_machine_id(id)) {
            return Err(invalid("machine_id", "it takes 32 hexadecimal digits"));
        }
        let (host_name, machine_id, network) = (restored.host_name, restored.machine_id, restored.network.clone());
        credentials::blocking(move || {
            reseed(&entropy).map_err(|error| failed("reseed its random numbers", &error))?;
            clock_settime(ClockId::Realtime, now).map_err(|error| failed("set its clock", &error.into()))?;
            identity::assume(host_name.as_deref(), machine_id.as_deref())
                .map_err(|error| failed("take its name", &error))?;
            match network {
                Some(network) => {
                    network::configure(&network, before.as_ref()).map_err(|error| failed("set up its network", &error))
                }
                None => Ok(()),
            }
        })
        .await?;
        if restored.network.is_some() {
            *self.network.lock() = restored.network;
        }
        if !restored.copy {
            return Ok(None);
        }
        random_name().map(Some).map_err(|error| failed("draw random numbers", &error))
    }
}

fn failed(step: &str, error: &io::Error) -> GuestError {
    GuestError::new(ErrorCode::Internal, format!("the restored machine cannot {step}: {error}"))
}

/// Mixes bytes into the kernel's random numbers and makes the kernel use them at once.
fn reseed(entropy: &[u8]) -> io::Result<()> {
    /// `struct rand_pool_info` with room for the most bytes that are given.
    #[repr(C)]
    struct Pool {
        bits: libc::c_int,
        length: libc::c_int,
        bytes: [u8; *ENTROPY_BYTES.end()],
    }
    let random = File::options().write(true).open("/dev/urandom")?;
    let mut pool = Pool { bits: 0, length: 0, bytes: [0; *ENTROPY_BYTES.end()] };
    pool.length = libc::c_int::try_from(entropy.len()).map_err(io::Error::other)?;
    pool.bits = pool.length.saturating_mul(8);
    let room = pool.bytes.get_mut(..entropy.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(entropy);
    // SAFETY: the kernel reads the header and `length` bytes after it, all of which `pool` has.
    if unsafe { libc::ioctl(random.as_raw_fd(), ADD_ENTROPY, &raw const pool) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this request has no argument.
    if unsafe { libc::ioctl(random.as_raw_fd(), RESEED) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
