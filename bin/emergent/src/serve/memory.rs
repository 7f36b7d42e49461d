//! The process's memory: pages that are no longer used go back to the system.

#![expect(unsafe_code, reason = "the allocator has no other way to be told")]

/// The least size of allocations that have pages of their own, which go back as soon as they are freed. The allocator
/// would raise this by itself, up to 32 MiB, with the first large body that is freed, and keep all later ones.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 1 << 20;

/// The most bytes that the allocator may keep for later allocations.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: usize = 16 << 20;

/// Sets the allocator's options, for later allocations.
pub(crate) fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt(3) takes no pointer, and this option is a number that each allocation reads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives back all unused memory, such as that of the start alone: 10 MB, most of them for the OpenAPI document.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back unused memory, if it is much. Takes milliseconds then.
pub(crate) fn give_back_much() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallinfo2(3) takes no pointer, and may be called at any time.
        let unused = unsafe { libc::mallinfo2() }.fordblks;
        if unused > KEPT {
            give_back();
        }
    }
}
