//! The one call to the C library that no crate here wraps: giving memory back. Nothing else may be added without a reason.
#![allow(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// Gives back to the system what the allocator holds and nobody uses. Takes some milliseconds: never on the way of an answer.
pub(crate) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes a number, touches only free memory of the allocator, and may be called from any thread.
        unsafe { libc::malloc_trim(0) };
    }
}
