//! The C library's allocator, from which ONNX Runtime has its memory.

/// Lets glibc's allocator divide its memory into so many arenas at most; it takes eight for each core
/// otherwise. Every load runs on a thread of its own, and leaves something behind in the arena that it
/// had: with fewer of them, less stays after hundreds of swaps. To be called before there are threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no safe interface for it")]
pub fn bound_arenas(count: usize) {
    let count = libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX);
    // SAFETY: mallopt may be called at any time and takes plain numbers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, count);
    }
}

/// There is nothing to bound.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound_arenas(_count: usize) {}

/// Returns what glibc's allocator keeps of freed memory to the system. Without it a process that
/// loads and unloads models keeps several times their size.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library has no safe interface for it")]
pub(super) fn give_memory_back() {
    // SAFETY: malloc_trim may be called at any time from any thread and takes a plain number.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_memory_back() {}
