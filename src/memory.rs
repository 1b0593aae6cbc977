//! The process's peak memory, per stage where the system allows it.

/// Forgets the peak so far, so that the next [`peak`] is of what follows. Only Linux can; elsewhere
/// the peak stays that of the whole process.
pub fn reset_peak() {
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
