//! TAP interfaces: made here to stay, with an owner, and opened by the VMM.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    ioctl::{IntegerSetter, Opcode, Setter, opcode},
};

use crate::{NetworkError, TapName};

const DEVICE: &str = "/dev/net/tun";
const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
const SET_PERSISTENT: Opcode = opcode::write::<i32>(b'T', 203);
const SET_OWNER: Opcode = opcode::write::<i32>(b'T', 204);
/// Ethernet frames, without the four bytes of protocol information, with the header that virtio puts before each.
const TAP_WITHOUT_INFO_WITH_HEADER: u16 = 0x0002 | 0x1000 | 0x4000;

/// The kernel's `struct ifreq`, as far as `TUNSETIFF` reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes a TAP that stays when nobody has it open, and that only `owner` may open. One that is there gets the owner,
/// unless a VMM has it open.
pub(crate) fn create(name: &TapName, owner: u32) -> Result<(), NetworkError> {
    let doing = || format!("making the interface {name}");
    let tap = match open(name) {
        Ok(tap) => tap,
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => return Ok(()),
        Err(error) => return Err(NetworkError::host(doing(), advise(&error))),
    };
    // The owner first: from the last call on the interface outlives this process.
    set(&tap, Request::Owner(owner)).map_err(|error| NetworkError::host(doing(), error))?;
    set(&tap, Request::Persistent).map_err(|error| NetworkError::host(doing(), error))
}

/// Opens a TAP for its frames, each with the 10 bytes of virtio's header (`struct virtio_net_hdr`) before it. What a
/// VMM does with the name, for those that take an open descriptor instead.
///
/// # Errors
/// The kernel's: `EBUSY` where it is open already, `EPERM` for anybody but the owner.
pub fn open_tap(name: &TapName) -> io::Result<OwnedFd> {
    open(name).map(OwnedFd::from)
}

enum Request {
    Owner(u32),
    Persistent,
}

fn open(name: &TapName) -> io::Result<File> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    let mut request = InterfaceRequest { name: [0; 16], flags: TAP_WITHOUT_INFO_WITH_HEADER, rest: [0; 22] };
    // A name is 15 bytes long, so the last one stays zero.
    request.name.iter_mut().zip(name.as_str().bytes()).for_each(|(place, byte)| *place = byte);
    set_interface(&device, request)?;
    Ok(device)
}

#[expect(unsafe_code, reason = "the ioctls of /dev/net/tun have no safe wrapper in a crate that is kept well")]
fn set_interface(device: &File, request: InterfaceRequest) -> io::Result<()> {
    // SAFETY: TUNSETIFF copies a `struct ifreq` of 40 bytes, which `InterfaceRequest` is.
    unsafe { rustix::ioctl::ioctl(device, Setter::<SET_INTERFACE, _>::new(request)) }.map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "the ioctls of /dev/net/tun have no safe wrapper in a crate that is kept well")]
fn set(device: &File, request: Request) -> io::Result<()> {
    // SAFETY: both take an integer and touch no memory of ours.
    unsafe {
        match request {
            Request::Owner(uid) => {
                let uid = usize::try_from(uid).map_err(io::Error::other)?;
                rustix::ioctl::ioctl(device, IntegerSetter::<SET_OWNER>::new_usize(uid))
            }
            Request::Persistent => rustix::ioctl::ioctl(device, IntegerSetter::<SET_PERSISTENT>::new_usize(1)),
        }
    }
    .map_err(io::Error::from)
}

fn advise(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; load the kernel module: modprobe tun",
        io::ErrorKind::PermissionDenied => "; it takes CAP_NET_ADMIN and a /dev/net/tun that this user may open",
        _ => "",
    };
    format!("{DEVICE}: {error}{advice}")
}
