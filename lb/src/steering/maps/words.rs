//! An array of 64-bit words, mapped into our memory: control stores each with one store, and a packet that reads it
//! at the same moment sees the old word or the new one.
#![expect(unsafe_code, reason = "a memory-mapped BPF array is shared with the kernel")]

use std::{os::fd::AsFd as _, ptr::NonNull, sync::atomic::AtomicU64};

use aya::maps::{Map, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::super::error::{Error, Result};

/// The map and its memory. Unmapped on drop; what was stored stays in the map.
#[derive(Debug)]
pub(super) struct Words {
    memory: NonNull<AtomicU64>,
    /// Words in it.
    len: usize,
    /// Keeps the map open for as long as it is mapped.
    _map: MapData,
}

// SAFETY: the memory is only reached through `&AtomicU64`, and belongs to no thread.
unsafe impl Send for Words {}

impl Words {
    /// Maps the array of this name, which must have been created with `BPF_F_MMAPABLE` and values of whole words.
    pub(super) fn map(map: Map, name: &'static str) -> Result<Self> {
        let Map::Array(data) = map else {
            return Err(Error::Missing { kind: "mapped array", name });
        };
        let info = data.info().map_err(Error::map(name))?;
        let len = info.max_entries() as usize * info.value_size() as usize / size_of::<u64>();
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
        .map_err(|errno| Error::Syscall { call: format!("mmap of map {name}"), source: errno.into() })?;
        let memory = NonNull::new(memory.cast()).ok_or_else(|| Error::Syscall {
            call: format!("mmap of map {name}"),
            source: std::io::ErrorKind::AddrNotAvailable.into(),
        })?;
        Ok(Self { memory, len, _map: data })
    }

    /// All of them.
    pub(super) fn array(&self) -> &[AtomicU64] {
        // SAFETY: `memory` is page-aligned and maps `len` words until `self` is dropped; every bit
        // pattern is a u64, and both sides access it atomically only (the program by one 64-bit load).
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and no slice outlives `self`. An error would mean
        // a wrong address; the mapping then stays until exit, which harms nobody.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.len * size_of::<u64>()) };
    }
}
