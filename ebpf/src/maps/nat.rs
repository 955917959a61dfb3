//! Map statics of translated flows.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use lb_abi::{
    bounds,
    flow::FlowKey,
    nat::{NatEntry, NatEvent, NatPool},
};
use lb_ebpf::nat::Passage;

#[map]
pub(crate) static NAT_OPENING: LruHashMap<FlowKey, NatEntry> =
    LruHashMap::with_max_entries(bounds::NAT_OPENING_MAX, 0);
/// Not preallocated: whole it would be 150 MiB, for a box that may translate nothing.
#[map]
pub(crate) static NAT_FLOWS: HashMap<FlowKey, NatEntry> =
    HashMap::with_max_entries(bounds::NAT_FLOWS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static NAT_POOLS: Array<NatPool> = Array::with_max_entries(bounds::VIPS_MAX, 0);
#[map]
pub(crate) static NAT_SOURCES: Array<[u8; 16]> = Array::with_max_entries(bounds::NAT_SOURCES_MAX, 0);
#[map]
pub(crate) static NAT_POSITION: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
/// The program's own: nobody else reads it.
#[map]
pub(crate) static NAT_PASSAGE: PerCpuArray<Passage> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static NAT_EVENTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(NatEvent::ALL.len() as u32, 0);
