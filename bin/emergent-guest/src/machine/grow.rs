//! File systems on disks that have become larger: the host lengthens the disk, and the guest uses the rest.

#![expect(unsafe_code, reason = "the kernel resizes file systems by ioctl(2) only")]

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::Path,
};

/// `EXT4_IOC_RESIZE_FS`: `_IOW('f', 16, __u64)`.
const RESIZE: libc::c_ulong = 0x4008_6610;

/// The offset of ext4's superblock on a disk, and the offsets in it of the number of blocks (the lower half, the upper
/// half) and of their size.
const SUPERBLOCK: u64 = 1024;
const BLOCKS: u64 = SUPERBLOCK + 0x4;
const BLOCKS_ABOVE: u64 = SUPERBLOCK + 0x150;
const BLOCK_SIZE: u64 = SUPERBLOCK + 0x18;

/// Makes an ext4 file system that is mounted at `directory` as large as its disk. If it is already, that costs two
/// reads.
///
/// # Errors
/// When the kernel refuses; the file system is as it was, and usable.
pub fn to_its_disk(device: &Path, directory: &Path) -> io::Result<()> {
    let mut disk = File::open(device)?;
    let length = disk.seek(SeekFrom::End(0))?;
    let word = |place| {
        let mut bytes = [0; 4];
        disk.read_exact_at(&mut bytes, place).map(|()| u64::from(u32::from_le_bytes(bytes)))
    };
    // The size is a power of two, told by its distance from 1 KiB; the largest that there is are 64 KiB.
    let block = 1024_u64 << word(BLOCK_SIZE)?.min(6);
    let (has, could_have) = (word(BLOCKS_ABOVE)? << 32 | word(BLOCKS)?, length / block);
    if has >= could_have {
        return Ok(());
    }
    let mounted = File::open(directory)?;
    // SAFETY: the kernel reads one number of 64 bits, which `could_have` is.
    if unsafe { libc::ioctl(mounted.as_raw_fd(), RESIZE, &raw const could_have) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
