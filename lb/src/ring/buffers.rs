//! Buffers that the kernel picks from when data arrives, so that an idle connection holds none.
//!
//! Source: io_uring_register_buf_ring(3); the ring of buffers is shared memory whose tail we publish.

use std::{
    cell::Cell,
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};
use rustix::mm::{MapFlags, ProtFlags};

use super::Ring;

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
    size: usize,
}

impl Group {
    const fn shape(self) -> Shape {
        match self {
            Self::Small => Shape { id: 0, entries: 512, size: 8 << 10 },
            Self::Large => Shape { id: 1, entries: 32, size: 128 << 10 },
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
    /// Buffers that an [`RxBuf`] stands for.
    lent: Cell<usize>,
    group: Group,
}

impl BufferRing {
    fn register(uring: &IoUring, group: Group) -> io::Result<Self> {
        let shape = group.shape();
        let entries = Memory::map(shape.entries as usize * size_of::<BufRingEntry>())?;
        let payload = Memory::map(shape.entries as usize * shape.size)?;
        let ring = Self { entries, payload, tail: Cell::new(0), lent: Cell::new(0), group };
        // SAFETY: the entries are page aligned, large enough for their count, and outlive the ring.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                ring.entries.base.as_ptr() as u64,
                shape.entries,
                shape.id,
                0,
            )
        }?;
        (0..shape.entries).for_each(|id| ring.give(id));
        Ok(ring)
    }

    /// Hands buffer `id` to the kernel.
    fn give(&self, id: u16) {
        let shape = self.group.shape();
        let tail = self.tail.get();
        let place = (tail & (shape.entries - 1)) as usize;
        // SAFETY: `place` is below the number of entries; the kernel reads an entry only after the tail below
        // was published, and this thread is the only writer.
        unsafe {
            let entry = &mut *self.entries.base.as_ptr().cast::<BufRingEntry>().add(place);
            entry.set_addr(self.payload.base.as_ptr().add(id as usize * shape.size) as u64);
            entry.set_len(shape.size as u32);
            entry.set_bid(id);
        }
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the tail lies in the first entry's reserved field, inside the mapping, aligned to two bytes.
        unsafe {
            let shared = BufRingEntry::tail(self.entries.base.as_ptr().cast::<BufRingEntry>());
            AtomicU16::from_ptr(shared.cast_mut()).store(self.tail.get(), Ordering::Release);
        }
    }
}

/// Both groups of one ring.
pub(super) struct Buffers {
    small: BufferRing,
    large: BufferRing,
}

impl Buffers {
    pub(super) fn register(uring: &IoUring) -> io::Result<Self> {
        Ok(Self {
            small: BufferRing::register(uring, Group::Small)?,
            large: BufferRing::register(uring, Group::Large)?,
        })
    }

    fn of(&self, group: Group) -> &BufferRing {
        match group {
            Group::Small => &self.small,
            Group::Large => &self.large,
        }
    }

    pub(super) fn lent(&self, group: Group) -> usize {
        self.of(group).lent.get()
    }
}

/// Received bytes in a buffer of the ring; goes back to the kernel on drop.
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
        let lent = &ring.0.buffers.of(group).lent;
        lent.set(lent.get() + 1);
        assert!(lent.get() <= group.count(), "the kernel picks a buffer once until it is given back");
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
        let ring = self.ring.0.buffers.of(self.group);
        ring.lent.set(ring.lent.get() - 1);
        ring.give(self.id);
    }
}

impl std::fmt::Debug for RxBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RxBuf({:?} #{}, {} bytes)", self.group, self.id, self.len)
    }
}
