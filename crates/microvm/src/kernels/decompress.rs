//! The unpacking of the kernel in a bootable image.
//!
//! A `bzImage` is a program that unpacks the kernel inside the machine. Unpacked once, outside, it boots sooner.

use std::io::Read;

/// The largest kernel that is taken, unpacked.
const LIMIT: u64 = 512 << 20;

const ELF: &[u8] = b"\x7fELF";
/// The places in a `bzImage` of its magic number, the length of its set-up code, and its payload's place and length.
const MAGIC_AT: usize = 0x202;
const SETUP_SECTORS_AT: usize = 0x1f1;
const PAYLOAD_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;

/// The ELF image in `image`, which may be it already. An error is a reason.
pub(crate) fn vmlinux(image: &[u8]) -> Result<Vec<u8>, String> {
    if image.starts_with(ELF) {
        return Ok(image.to_vec());
    }
    let payload = payload(image).ok_or("it is neither an ELF image nor a bzImage")?;
    let kernel = unpack(payload)?;
    match kernel.starts_with(ELF) {
        true => Ok(kernel),
        false => Err("the kernel in the bzImage is not an ELF image".to_owned()),
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(MAGIC_AT..MAGIC_AT + 4)? != b"HdrS" {
        return None;
    }
    let number = |place: usize| {
        let bytes = image.get(place..place + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    // Four where it says none.
    let sectors = usize::from(*image.get(SETUP_SECTORS_AT)?);
    let start = (if sectors == 0 { 4 } else { sectors } + 1) * 512 + number(PAYLOAD_AT)?;
    image.get(start..start.checked_add(number(PAYLOAD_LENGTH_AT)?)?)
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    match payload {
        [0x02, 0x21, 0x4c, 0x18, ..] => all(lz4_flex::frame::FrameDecoder::new(without_size(payload))),
        [0x1f, 0x8b, ..] => all(flate2::read::GzDecoder::new(payload)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            all(ruzstd::decoding::StreamingDecoder::new(payload).map_err(|error| error.to_string())?)
        }
        _ => Err("it is packed neither by lz4, gzip nor zstd; give an uncompressed vmlinux".to_owned()),
    }
}

/// The unpacked size that the kernel's build appends, where the packing has no end mark of its own.
fn without_size(payload: &[u8]) -> &[u8] {
    payload.get(..payload.len().saturating_sub(4)).unwrap_or_default()
}

fn all(decoder: impl Read) -> Result<Vec<u8>, String> {
    let mut kernel = Vec::new();
    let read = decoder.take(LIMIT + 1).read_to_end(&mut kernel);
    match read {
        Ok(_) if kernel.len() as u64 > LIMIT => Err("it is larger than any kernel".to_owned()),
        Ok(_) => Ok(kernel),
        // Bytes may follow what is packed.
        Err(_) if kernel.starts_with(ELF) && is_whole(&kernel) => Ok(kernel),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether an ELF image has its section headers, which come last.
fn is_whole(kernel: &[u8]) -> bool {
    let number = |place: usize, length: usize| {
        let bytes = kernel.get(place..place + length)?;
        bytes.iter().rev().try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)))
    };
    let end = || number(0x28, 8)?.checked_add(number(0x3a, 2)?.checked_mul(number(0x3c, 2)?)?);
    end().is_some_and(|end| end <= kernel.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SETUP_SECTORS_AT] = 1;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 4]
            .copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_kernel_is_found_in_what_boots() {
        let kernel = [ELF, &[7; 4000]].concat();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&kernel).unwrap();
        assert_eq!(vmlinux(&bz_image(&packer.finish().unwrap())).unwrap(), kernel);
        assert_eq!(vmlinux(&kernel).unwrap(), kernel);
    }

    #[test]
    fn what_is_no_kernel_is_told_so() {
        for image in [&b"#!/bin/sh"[..], &bz_image(b"BZh9"), &bz_image(&[0x1f, 0x8b, 1]), &[]] {
            assert!(vmlinux(image).is_err());
        }
    }
}
