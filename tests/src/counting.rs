//! The heap, with a count of what threads ask of it that did not ask to be left out, and of the bytes that each one has.
#![expect(unsafe_code, reason = "an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
    /// Bytes that this thread has allocated less those that it has freed, and the most that they were.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// From now on what this thread allocates does not count.
pub fn leave_out_this_thread() {
    LEFT_OUT.set(true);
}

/// Allocations so far, reallocations included.
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Relaxed)
}

/// The most that this thread had allocated at once while it did this, beyond what it had before; and what it has kept.
pub fn held_by<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = HELD.get().0;
    HELD.set((before, before));
    let done = work();
    let (now, most) = HELD.get();
    (done, (most - before).unsigned_abs(), (now - before).max(0).unsigned_abs())
}

fn hold(bytes: isize) {
    _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

fn count() {
    // While a thread ends there is no cell any more.
    if !LEFT_OUT.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, Relaxed);
    }
}

/// For a program's `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

// SAFETY: each call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        hold(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
