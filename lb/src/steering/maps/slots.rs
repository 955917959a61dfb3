//! `SLOTS`, mapped into our memory: control stores a slot with one 64-bit store, and a packet that reads it
//! at the same moment sees the old word or the new one.
#![expect(unsafe_code, reason = "a memory-mapped BPF array is shared with the kernel")]

use std::{
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Map, MapData};
use lb_abi::{names::MAP_SLOTS, slot::Slot};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::super::error::{Error, Result};

/// The map and its memory. Unmapped on drop; what was stored stays in the map.
pub struct Slots {
    memory: NonNull<AtomicU64>,
    /// Slots in it.
    len: usize,
    /// Keeps the map open for as long as it is mapped.
    _map: MapData,
}

// SAFETY: the memory is only reached through `&AtomicU64`, and belongs to no thread.
unsafe impl Send for Slots {}

impl Slots {
    /// Maps the array, which must have been created with `BPF_F_MMAPABLE`.
    pub(super) fn map(map: Map) -> Result<Self> {
        let Map::Array(data) = map else {
            return Err(Error::Missing { kind: "mapped array", name: MAP_SLOTS });
        };
        let info = data.info().map_err(Error::map(MAP_SLOTS))?;
        let len = info.max_entries() as usize;
        // SAFETY: a new mapping at an address of the kernel's choice, as long as the kernel says that the map's
        // values are (rounded up to pages by itself); it refuses to exceed them (EINVAL).
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                len * size_of::<u64>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                data.fd().as_fd(),
                0,
            )
        }
        .map_err(|errno| Error::Syscall { call: format!("mmap of map {MAP_SLOTS}"), source: errno.into() })?;
        let memory = NonNull::new(memory.cast()).ok_or_else(|| Error::Syscall {
            call: format!("mmap of map {MAP_SLOTS}"),
            source: std::io::ErrorKind::AddrNotAvailable.into(),
        })?;
        Ok(Self { memory, len, _map: data })
    }

    /// All slots of all tables.
    pub fn array(&self) -> SlotArray<'_> {
        // SAFETY: `memory` is page-aligned and maps `len` words until `self` is dropped; every bit
        // pattern is a u64, and both sides access it atomically only (the program by one 64-bit load).
        SlotArray(unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and no `SlotArray` outlives `self`. An error would mean
        // a wrong address; the mapping then stays until exit, which harms nobody.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.len * size_of::<u64>()) };
    }
}

/// Slots as control reads and stores them.
#[derive(Clone, Copy)]
pub struct SlotArray<'a>(&'a [AtomicU64]);

impl<'a> SlotArray<'a> {
    /// Slots that lie in `words`.
    pub fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    /// Slots `first .. first + len`; none where they do not exist.
    pub fn range(self, first: usize, len: usize) -> Self {
        Self(self.0.get(first..first.saturating_add(len)).unwrap_or_default())
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The slot at `index`; settled on nobody beyond the end.
    pub fn load(self, index: usize) -> Slot {
        Slot(self.0.get(index).map_or(0, |word| word.load(Ordering::Relaxed)))
    }

    /// Stores a slot; everything written to the maps before is visible to whoever reads it.
    pub fn store(self, index: usize, slot: Slot) {
        if let Some(word) = self.0.get(index) {
            word.store(slot.0, Ordering::Release);
        }
    }

    /// All, in order.
    pub fn iter(self) -> impl Iterator<Item = Slot> + 'a {
        self.0.iter().map(|word| Slot(word.load(Ordering::Relaxed)))
    }
}
