//! The process's memory.

#![expect(unsafe_code, reason = "the allocator has no other way to be told")]

/// Gives back what the start alone has needed. That is 10 MB, most of them for the OpenAPI document, and the
/// allocator would keep them for a server that may be idle for good.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
