//! The calls to the C library's allocator that no crate here wraps: giving memory back, and keeping it together. Nothing else may be
//! added without a reason.
#![allow(unsafe_code, reason = "malloc_trim and mallopt have no safe wrappers")]

/// Gives back to the system what the allocator holds and nobody uses. Takes some milliseconds: never on the way of an answer.
pub(crate) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes a number, touches only free memory of the allocator, and may be called from any thread.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Has all threads allocate from so many heaps at most, instead of eight for each core: what a hundred threads need one after another
/// is else held once for each of them. Not fewer: librbd allocates some ten thousand pieces for each image it opens, and the threads
/// that clone would wait for each other (4 % of all clones of a host, for 4 MiB with a thousand nodes). Called before there are threads.
pub(crate) fn keep_memory_together() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes two numbers; before other threads run nobody is in the allocator.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 16) };
    }
}
