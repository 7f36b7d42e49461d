//! Names that nobody can guess.

use std::io;

use rustix::rand::GetRandomFlags;

/// 128 random bits in hexadecimal.
///
/// # Errors
/// When the kernel has no random numbers.
pub fn random_name() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
