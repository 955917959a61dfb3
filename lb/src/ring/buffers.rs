//! Buffers that the kernel picks from when data arrives, so that an idle connection holds none.
//!
//! ```text
//!  spare (a stack) --refill, before each turn--> window, in the kernel's hands --picked--> RxBuf
//!        ^---------------------------------------- dropped -------------------------------'
//! ```
//! The kernel picks in the order it was given them, so it is given only as many as one turn may need: what was used last,
//! and lies in a cache, is used next, and memory that no burst has needed is never touched.
//!
//! Source: io_uring_register_buf_ring(3); the ring of buffers is shared memory whose tail we publish.

use std::{
    cell::{Cell, RefCell},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags};

use super::{
    Ring,
    driver::{Driver, SharedRing},
    window::Window,
};

/// Which size of buffer a receive wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// 8 KiB: heads, small bodies, idle connections.
    Small,
    /// 128 KiB: bodies and bulk, where a small buffer costs two to five times the CPU per byte.
    Large,
}

struct Shape {
    id: u16,
    /// A power of two.
    entries: u16,
    /// Least that the kernel is given.
    window_min: u16,
    size: usize,
}

impl Group {
    const fn shape(self) -> Shape {
        match self {
            Self::Small => Shape { id: 0, entries: 512, window_min: 32, size: 8 << 10 },
            Self::Large => Shape { id: 1, entries: 32, window_min: 4, size: 128 << 10 },
        }
    }

    /// Buffers of a ring.
    pub const fn count(self) -> usize {
        self.shape().entries as usize
    }

    pub(super) const fn id(self) -> u16 {
        self.shape().id
    }

    /// Bytes of one buffer.
    pub const fn size(self) -> usize {
        self.shape().size
    }
}

/// Anonymous memory, unmapped on drop.
struct Memory {
    base: NonNull<u8>,
    len: usize,
}

impl Memory {
    fn map(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh private anonymous mapping overlaps nothing that exists.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        Ok(Self { base, len })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `map` made; the ring that knew of it is gone (fields of `Inner` drop
        // in order, the ring first), and every `RxBuf` holds the `Inner`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

struct BufferRing {
    entries: Memory,
    payload: Memory,
    tail: Cell<u16>,
    window: Cell<Window>,
    /// Buffers that neither the kernel nor an [`RxBuf`] has; the last one was used last.
    spare: RefCell<Vec<u16>>,
    /// Buffers that an [`RxBuf`] stands for.
    lent: Cell<usize>,
    group: Group,
}

impl BufferRing {
    fn register(driver: &mut Driver, group: Group) -> io::Result<Self> {
        let shape = group.shape();
        let entries = Memory::map(shape.entries as usize * size_of::<BufRingEntry>())?;
        let payload = Memory::map(shape.entries as usize * shape.size)?;
        let ring = Self {
            entries,
            payload,
            tail: Cell::new(0),
            window: Cell::new(Window::new(shape.window_min, shape.entries)),
            spare: RefCell::new((0..shape.entries).rev().collect()),
            lent: Cell::new(0),
            group,
        };
        let shared =
            SharedRing { entries: ring.entries.base.as_ptr() as u64, count: shape.entries, group: shape.id };
        driver.register(shared)?;
        Ok(ring)
    }

    /// Gives the kernel what the next turn may need.
    fn refill(&self) {
        let mut window = self.window.get();
        let mut missing = window.turn();
        if missing > 0 {
            let (mut spare, mut tail) = (self.spare.borrow_mut(), self.tail.get());
            while missing > 0
                && let Some(id) = spare.pop()
            {
                self.write(tail, id);
                tail = tail.wrapping_add(1);
                window.given += 1;
                missing -= 1;
            }
            self.publish(tail);
        }
        self.window.set(window);
    }

    /// Writes buffer `id` to the place of `tail`.
    fn write(&self, tail: u16, id: u16) {
        let shape = self.group.shape();
        let place = (tail & (shape.entries - 1)) as usize;
        // SAFETY: `place` is below the number of entries; the kernel reads an entry only after the tail was published,
        // and this thread is the only writer.
        unsafe {
            let entry = &mut *self.entries.base.as_ptr().cast::<BufRingEntry>().add(place);
            entry.set_addr(self.payload.base.as_ptr().add(id as usize * shape.size) as u64);
            entry.set_len(shape.size as u32);
            entry.set_bid(id);
        }
    }

    /// Hands all that was written before `tail` to the kernel.
    fn publish(&self, tail: u16) {
        self.tail.set(tail);
        // SAFETY: the tail lies in the first entry's reserved field, inside the mapping, aligned to two bytes.
        unsafe {
            let shared = BufRingEntry::tail(self.entries.base.as_ptr().cast::<BufRingEntry>());
            AtomicU16::from_ptr(shared.cast_mut()).store(tail, Ordering::Release);
        }
    }

    /// The kernel has picked one.
    fn picked(&self) {
        let mut window = self.window.get();
        window.given -= 1;
        self.window.set(window);
        self.lent.set(self.lent.get() + 1);
    }

    fn give_back(&self, id: u16) {
        self.lent.set(self.lent.get() - 1);
        self.spare.borrow_mut().push(id);
    }
}

/// Both groups of one ring.
pub(super) struct Buffers {
    small: BufferRing,
    large: BufferRing,
}

impl Buffers {
    pub(super) fn register(driver: &mut Driver) -> io::Result<Self> {
        Ok(Self {
            small: BufferRing::register(driver, Group::Small)?,
            large: BufferRing::register(driver, Group::Large)?,
        })
    }

    fn of(&self, group: Group) -> &BufferRing {
        match group {
            Group::Small => &self.small,
            Group::Large => &self.large,
        }
    }

    /// Gives the kernel what the next turn may need.
    pub(super) fn refill(&self) {
        self.small.refill();
        self.large.refill();
    }

    pub(super) fn lent(&self, group: Group) -> usize {
        self.of(group).lent.get()
    }
}

/// Received bytes in a buffer of the ring; goes back to the ring on drop.
pub struct RxBuf {
    ring: Ring,
    group: Group,
    id: u16,
    len: u32,
}

impl RxBuf {
    /// Takes over buffer `id`, which the kernel picked for a receive that returned `result`.
    pub(super) fn new(ring: &Ring, group: Group, id: u16, result: i32) -> Self {
        assert!(id < group.shape().entries, "the kernel picks only buffers that we registered");
        let len = result.clamp(0, group.size() as i32) as u32;
        ring.0.buffers.of(group).picked();
        Self { ring: ring.clone(), group, id, len }
    }

    /// Where it goes back to.
    pub fn group(&self) -> Group {
        self.group
    }

    /// Whether the receive filled the whole buffer: more is probably waiting.
    pub fn is_full(&self) -> bool {
        self.len as usize == self.group.size()
    }
}

impl std::ops::Deref for RxBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let ring = self.ring.0.buffers.of(self.group);
        // SAFETY: `id` is below the number of buffers and `len` at most a buffer's size; the kernel does not
        // write a buffer between its pick and its return, and `self` is the one owner of that time.
        unsafe {
            let start = ring.payload.base.as_ptr().add(self.id as usize * self.group.size());
            std::slice::from_raw_parts(start, self.len as usize)
        }
    }
}

impl std::ops::DerefMut for RxBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let ring = self.ring.0.buffers.of(self.group);
        // SAFETY: as in `deref`, and `&mut self` is the one way to these bytes.
        unsafe {
            let start = ring.payload.base.as_ptr().add(self.id as usize * self.group.size());
            std::slice::from_raw_parts_mut(start, self.len as usize)
        }
    }
}

impl Drop for RxBuf {
    fn drop(&mut self) {
        self.ring.0.buffers.of(self.group).give_back(self.id);
    }
}

impl std::fmt::Debug for RxBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RxBuf({:?} #{}, {} bytes)", self.group, self.id, self.len)
    }
}
