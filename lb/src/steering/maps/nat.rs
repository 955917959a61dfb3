//! Maps of translated flows. There may be a million entries, so they are read in batches: one syscall for
//! thousands, where an iterator makes two for each.
#![expect(unsafe_code, reason = "aya has no batched look-ups")]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
};
use lb_abi::{
    flow::FlowKey,
    names,
    nat::{NatEntry, NatPool},
};

use super::{
    super::error::{Error, Result},
    take, typed,
};

/// The maps of translated flows.
pub struct NatMaps {
    /// `NAT_OPENING`: half-open flows.
    pub opening: NatFlows,
    /// `NAT_FLOWS`: established flows.
    pub flows: NatFlows,
    /// `NAT_POOLS`, by VIP index: which sources its flows are given.
    pub pools: Array<MapData, NatPool>,
    /// `NAT_SOURCES`: addresses that sources are translated to.
    pub sources: Array<MapData, [u8; 16]>,
    /// `NAT_EVENTS`: what became of translated flows.
    pub events: PerCpuArray<MapData, u64>,
}

impl NatMaps {
    /// Takes them out of the object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            opening: NatFlows::of(take(object, names::MAP_NAT_OPENING)?, names::MAP_NAT_OPENING)?,
            flows: NatFlows::of(take(object, names::MAP_NAT_FLOWS)?, names::MAP_NAT_FLOWS)?,
            pools: typed(object, names::MAP_NAT_POOLS)?,
            sources: typed(object, names::MAP_NAT_SOURCES)?,
            events: typed(object, names::MAP_NAT_EVENTS)?,
        })
    }
}

/// `NAT_OPENING` or `NAT_FLOWS`.
pub struct NatFlows {
    map: Map,
    name: &'static str,
}

/// Where a reading of a map goes on; the kernel's own measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatPlace(Option<u32>);

/// `BPF_MAP_LOOKUP_BATCH`. Source: linux/bpf.h, v6.1.
const LOOKUP_BATCH: libc::c_int = 24;

/// The part of `union bpf_attr` for batches. Source: linux/bpf.h, v6.1.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Batch>() == 56);

impl NatFlows {
    /// Checks what kind of map it is, and its sizes.
    pub(super) fn of(map: Map, name: &'static str) -> Result<Self> {
        HashMap::<&MapData, FlowKey, NatEntry>::try_from(&map).map_err(Error::map(name))?;
        Ok(Self { map, name })
    }

    /// The entry under a key.
    ///
    /// # Errors
    /// The kernel's.
    pub fn get(&self, key: &FlowKey) -> Result<Option<NatEntry>> {
        let map =
            HashMap::<&MapData, FlowKey, NatEntry>::try_from(&self.map).map_err(Error::map(self.name))?;
        match map.get(key, 0) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) => absent(error).map(|()| None).map_err(Error::map(self.name)),
        }
    }

    /// Removes an entry; one that is gone already is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&mut self, key: &FlowKey) -> Result<()> {
        let mut map = HashMap::<&mut MapData, FlowKey, NatEntry>::try_from(&mut self.map)
            .map_err(Error::map(self.name))?;
        map.remove(key).or_else(absent).map_err(Error::map(self.name))
    }

    /// Up to `count` entries from `place` on, and whether these were the last; `place` then begins anew. Entries
    /// written or removed meanwhile may be missed, and none is told twice unless it was.
    ///
    /// # Errors
    /// The kernel's; one of its buckets may hold more than `count` (`ENOSPC`).
    pub fn read(&self, place: &mut NatPlace, count: usize) -> Result<(Vec<(FlowKey, NatEntry)>, bool)> {
        let mut keys = vec![FlowKey::default(); count];
        let mut values = vec![NatEntry::default(); count];
        let (from, mut next) = (place.0, 0u32);
        let (Map::HashMap(data) | Map::LruHashMap(data)) = &self.map else {
            return Err(Error::Missing { kind: "hash map", name: self.name });
        };
        let mut batch = Batch {
            in_batch: from.as_ref().map_or(0, |place| std::ptr::from_ref(place).expose_provenance() as u64),
            out_batch: (&raw mut next).expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            map_fd: data.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the structure and what it names live until the call returns: `from` and `next` are a u32 each
        // (what a hash map's place is), `keys` and `values` hold `count` elements of the map's sizes, which `of`
        // has checked. Any bytes are valid ones.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
        let error = (answer < 0).then(io::Error::last_os_error);
        let is_last = match error {
            None => false,
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Some(source) => {
                *place = NatPlace::default();
                return Err(Error::Syscall {
                    call: format!("BPF_MAP_LOOKUP_BATCH of {}", self.name),
                    source,
                });
            }
        };
        *place = if is_last { NatPlace::default() } else { NatPlace(Some(next)) };
        Ok((keys.into_iter().zip(values).take(batch.count as usize).collect(), is_last))
    }
}

/// That nothing is there, as aya says it.
fn absent(error: MapError) -> std::result::Result<(), MapError> {
    match error {
        MapError::KeyNotFound => Ok(()),
        MapError::SyscallError(error) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        error => Err(error),
    }
}
