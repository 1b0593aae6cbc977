//! The process's memory: its peak, per stage where the system allows it, and what becomes of memory
//! that is freed.

use std::alloc::{GlobalAlloc, Layout, System};

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

/// The system's allocator, which asks for large pages under large blocks. In pages of 4 KiB a tensor's addresses
/// must be looked up again and again, and its lines may fall into the same places of the caches; ViT's forward and
/// backward pass took 3 to 7 % longer. Linux gives large pages to those who ask, unless set otherwise.
pub struct LargePages;

/// Bytes of a block from which on its pages are asked for: that takes about a microsecond.
#[cfg(target_os = "linux")]
const LARGE: usize = 1 << 22;

impl LargePages {
    /// What the system allocated, its pages asked for.
    fn advised(block: *mut u8, size: usize) -> *mut u8 {
        #[cfg(target_os = "linux")]
        if size >= LARGE && !block.is_null() {
            /// Of x86 and, with pages of 4 KiB, of ARM.
            const PAGE: usize = 2 << 20;
            let first = block.addr() / PAGE * PAGE;
            let length = (block.addr() + size).next_multiple_of(PAGE) - first;
            // SAFETY: it is advice, which changes no memory, here and around; where it is refused, nothing happens.
            unsafe { libc::madvise(block.with_addr(first).cast(), length, libc::MADV_HUGEPAGE) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = size;
        block
    }
}

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's, here and below.
        Self::advised(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::advised(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        Self::advised(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
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
    use super::LargePages;
    use std::alloc::{GlobalAlloc, Layout};

    #[test]
    fn large_blocks_ask_for_large_pages() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let layout = Layout::from_size_align(8 << 20, 64).unwrap();
        // SAFETY: the layout is not empty.
        let block = unsafe { LargePages.alloc(layout) };
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        // SAFETY: it was allocated so, and nothing refers to it.
        unsafe { LargePages.dealloc(block, layout) };
        let middle = block.addr() + layout.size() / 2;
        let holds = |line: &str| {
            let range = line.split(' ').next()?.split_once('-')?;
            let [first, end] =
                [range.0, range.1].map(|bound| usize::from_str_radix(bound, 16).ok());
            Some((first?..end?).contains(&middle))
        };
        let mut lines = maps.lines().skip_while(|line| holds(line) != Some(true));
        let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "hg"), "{flags}");
    }

    #[test]
    fn the_peak_sees_what_was_touched() {
        let before = super::peak().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(super::peak().unwrap() >= before.max(64 << 20));
        drop(block);
    }
}
