//! Maps of translated flows.

use core::ptr;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated as helpers};
use lb_abi::{
    flow::FlowKey,
    nat::{NatEntry, NatEvent, NatPool},
};
use lb_ebpf::nat::{NatCell, NatEnv, Passage, Refusal, Table};

use super::{add_one, kernel::Kernel};
use crate::maps;

/// `EEXIST` of the kernel, as helpers return it.
const EXISTS: i32 = -17;

/// This core's memory for a packet under translation.
#[inline(always)]
pub(crate) fn passage() -> Option<&'static mut Passage> {
    let passage = maps::nat::NAT_PASSAGE.get_ptr_mut(0)?;
    // SAFETY: this core's own entry, zero at first and written by `lb_nat` alone, which asks once: XDP programs are
    // not interrupted by one another on a core.
    Some(unsafe { &mut *passage })
}

impl NatEnv for Kernel<'_> {
    type Cell = Cell;

    #[inline(always)]
    fn nat(&self, table: Table, key: &FlowKey) -> Option<Cell> {
        match table {
            Table::Opening => maps::nat::NAT_OPENING.get_ptr_mut(key),
            Table::Established => maps::nat::NAT_FLOWS.get_ptr_mut(key),
        }
        .map(Cell)
    }

    #[inline(always)]
    fn nat_insert(&self, table: Table, key: &FlowKey, entry: &NatEntry) -> Result<(), Refusal> {
        let flags = u64::from(BPF_NOEXIST);
        let inserted = match table {
            Table::Opening => maps::nat::NAT_OPENING.insert(key, entry, flags),
            Table::Established => maps::nat::NAT_FLOWS.insert(key, entry, flags),
        };
        inserted.map_err(|error| if error == EXISTS { Refusal::Taken } else { Refusal::Full })
    }

    #[inline(always)]
    fn nat_remove(&self, table: Table, key: &FlowKey) {
        // The one error there is says that it is gone already.
        _ = match table {
            Table::Opening => maps::nat::NAT_OPENING.remove(key),
            Table::Established => maps::nat::NAT_FLOWS.remove(key),
        };
    }

    #[inline(always)]
    fn nat_pool(&self, vip: u32) -> Option<NatPool> {
        maps::nat::NAT_POOLS.get(vip).copied()
    }

    #[inline(always)]
    fn nat_source(&self, index: u32) -> Option<[u8; 16]> {
        maps::nat::NAT_SOURCES.get(index).copied()
    }

    #[inline(always)]
    fn nat_position(&self) -> (u32, u32) {
        // SAFETY: a helper without arguments.
        let core = unsafe { helpers::bpf_get_smp_processor_id() };
        let Some(position) = maps::nat::NAT_POSITION.get_ptr_mut(0) else { return (core, 0) };
        // SAFETY: this core's own entry; XDP programs are not interrupted by one another on a core.
        let now = unsafe { *position };
        // SAFETY: as above.
        unsafe { *position = now.wrapping_add(1) };
        (core, now)
    }

    #[inline(always)]
    fn count_nat(&self, event: NatEvent) {
        add_one(&maps::nat::NAT_EVENTS, event as u32);
    }
}

/// An entry in its map, whose values lie on eight-byte addresses.
pub(crate) struct Cell(*mut NatEntry);

impl NatCell for Cell {
    #[inline(always)]
    fn read(&self, entry: &mut NatEntry) {
        // SAFETY: a value of the map, which the kernel keeps mapped while the program runs; any bytes are a
        // valid entry. Other cores may store its tick and flags meanwhile, each a whole word; that it may be
        // given to another flow is race 5 of `lb_ebpf::nat`. Not volatile: that would go by way of the stack.
        unsafe { ptr::copy_nonoverlapping(self.0, entry, 1) };
    }

    #[inline(always)]
    fn see(&self, now: u32) {
        // SAFETY: as in `load`; the word is stored whole.
        unsafe { (&raw mut (*self.0).seen).write_volatile(now) };
    }

    #[inline(always)]
    fn flag(&self, flags: u32) {
        // SAFETY: as in `see`.
        unsafe { (&raw mut (*self.0).flags).write_volatile(flags) };
    }

    #[inline(always)]
    fn expect(&self, number: u32) {
        // SAFETY: as in `see`.
        unsafe { (&raw mut (*self.0).expected).write_volatile(number) };
    }
}
