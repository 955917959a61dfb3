//! What the heap holds, and where its large blocks lie.
#![expect(unsafe_code, reason = "C functions")]

/// Blocks of this size and more are mapped.
const LARGE_BYTES: i32 = 128 << 10;

/// Large blocks get mappings of their own, for good. By itself the C library raises that size with each such block that is
/// freed; then a table that grows is copied, and leaves a hole behind it. A mapping grows where it is, or moves without a
/// copy (mallopt(3), mremap(2)).
pub fn map_large_blocks() {
    // SAFETY: it takes two numbers; blocks that exist stay as they are.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// Bytes that are in use, over all arenas; what was freed and is kept for reuse is none. `None`: the C library does not say.
///
/// Asks every arena under its lock: some microseconds, and a millisecond or two where much was freed in pieces.
pub fn in_use() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes nothing and gives a value.
        let info = unsafe { libc::mallinfo2() };
        Some(info.uordblks as u64 + info.hblkhd as u64)
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_allocated_on_any_thread() {
        let Some(before) = in_use() else { return };
        let block = std::thread::spawn(|| vec![1_u8; 64 << 20]).join().unwrap();
        let held = in_use().unwrap();
        // Other tests run beside this one.
        assert!(held > before + (32 << 20), "{before} before, {held} with {} more", block.len());
    }
}
