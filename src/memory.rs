//! The process's memory: its peak, per stage where the system allows it, and what becomes of memory
//! that is freed.

/// Keeps freed memory for what is allocated next. By default glibc returns large blocks to the system,
/// and every operation on large tensors begins with its pages being made and cleared anew, which
/// takes a fifth of a pass through BERT-base. Elsewhere the allocator is left as it is.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let set = |parameter, value| {
            // SAFETY: mallopt(3) takes any parameter and value and says whether it has used them.
            unsafe { libc::mallopt(parameter, value) != 0 }
        };
        // Some versions take no more than half a heap of 64 MiB.
        let _ = set(libc::M_MMAP_THRESHOLD, 1 << 30) || set(libc::M_MMAP_THRESHOLD, 1 << 25);
        set(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// Gives freed memory back to the system and forgets the peak so far, so that the next [`peak`] is of
/// what follows. Only Linux can; elsewhere the peak stays that of the whole process.
pub fn reset_peak() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) has no preconditions; it touches free memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
    // Writing 5 resets VmHWM (proc(5)). Where it is refused, the peak stays a valid upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The highest resident memory in bytes, where the system tells.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_peak_sees_what_was_touched() {
        let before = super::peak().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(super::peak().unwrap() >= before.max(64 << 20));
        drop(block);
    }
}
