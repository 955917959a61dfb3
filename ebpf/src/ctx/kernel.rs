//! Maps, routes and clock of the kernel.

use core::mem::size_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup,
    },
    helpers::generated as helpers,
    programs::XdpContext,
};
use lb_abi::{
    activity,
    backend::BackendEntry,
    be::Be16,
    bounds::{ANSWERS_PER_TICK, SYNS_PER_TICK},
    counter::FlowEvent,
    directory::{Bucket, PortRanges, VipSlot},
    flow::{FlowKey, FlowRecord, Inserts},
    hop::{HOP_TICK_SHIFT, HopEntry},
    lengths::Lengths,
    limit::{Allowance, Limits, Meter},
    link::LinkEntry,
    meta::Meta,
    quic::{QuicEntry, QuicEvent, Server},
    reason::Reason,
    slot::{Slot, TICK_SHIFT},
    source::{SourceKey, SourceTree},
    spread::{Spread, port_bit},
    tag::{FlowTag, TagKeys},
    vip::{VipEntry, VipKey},
};
use lb_ebpf::{
    address::Address,
    env::{AllowanceCell, Env, FlowCell, Words},
    numbers::Family,
    route::{NextHop, Route, Unroutable},
};

use super::{
    AF_INET, AF_INET6, add_one, add_traffic,
    cells::{Left, Listed},
    count_drop, flows,
};
use crate::maps;

/// Maps, routes and clock.
pub(crate) struct Kernel<'a> {
    pub(super) ctx: &'a XdpContext,
    pub(super) room: u32,
    /// It is a witness's, whose frames are large: what can be is called apart.
    is_witnessed: bool,
}

impl<'a> Kernel<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx, room: maps::ROOM, is_witnessed: false }
    }

    /// A witness's, in one of the rooms of a core.
    #[inline(always)]
    pub(crate) fn within(ctx: &'a XdpContext, room: u32) -> Self {
        Self { ctx, room, is_witnessed: true }
    }
}

impl Env for Kernel<'_> {
    #[inline(always)]
    fn meta(&self) -> Option<&Meta> {
        maps::META.get(0)
    }

    #[inline(always)]
    fn gates(&self, word: u32) -> u64 {
        // SAFETY: as in `slot`.
        maps::GATES.get_ptr_mut(word).map_or(0, |word| unsafe { word.read_volatile() })
    }

    #[inline(always)]
    fn guard(&self, bucket: u32) -> Option<impl Words> {
        maps::GUARD.get_ptr_mut(bucket).map(Listed)
    }

    #[inline(always)]
    fn lengths(&self, index: u32) -> Option<&Lengths> {
        maps::LENGTHS.get(index)
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<&VipEntry> {
        // SAFETY: control replaces entries whole, and the kernel keeps the old one until the program ends
        // (RCU).
        unsafe { maps::VIPS.get(key) }
    }

    #[inline(always)]
    fn vip_bucket(&self, bucket: u32) -> Bucket {
        let Some(word) = maps::VIP_BUCKETS.get_ptr_mut(bucket) else { return Bucket::UNKNOWN };
        // SAFETY: as in `slot`.
        Bucket(unsafe { word.read_volatile() })
    }

    #[inline(always)]
    fn vip_ranges(&self, index: u32) -> Option<&PortRanges> {
        // As entries are written, and read.
        if index == 0 { None } else { maps::VIP_RANGES.get(index) }
    }

    #[inline(always)]
    fn vip_slot(&self, index: u16) -> Option<&VipSlot> {
        // Control writes an entry before its index stands in a bucket, and not again while a program may read it.
        maps::VIP_ENTRIES.get(index as u32)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let word = maps::SLOTS.get_ptr_mut(index)?;
        // SAFETY: array values are eight bytes on an eight-byte address; control stores them whole. Volatile,
        // so that it is read once and whole: relaxed atomic loads are not selectable for the BPF base
        // instruction set.
        Some(Slot(unsafe { word.read_volatile() }))
    }

    #[inline(always)]
    fn touch(&self, word: u32, index: u32) {
        let Some((page, cell)) = activity::place(word, index) else { return };
        let Some(page) = maps::ACTIVITY.get_ptr_mut(page) else { return };
        // SAFETY: `cell` is one of the page's. Two bytes on an even address, read and written whole; what cores write
        // there at one moment is the same.
        unsafe {
            let cell = page.cast::<u16>().add(cell);
            let window = activity::window(word);
            if cell.read_volatile() != window {
                cell.write_volatile(window);
            }
        }
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<&BackendEntry> {
        maps::BACKENDS.get(id as u32)
    }

    #[inline(always)]
    fn quic(&self, vip: u32) -> Option<&QuicEntry> {
        maps::QUIC.get(vip)
    }

    #[inline(always)]
    fn server(&self, id: u16) -> Option<Server> {
        let word = maps::QUIC_SERVERS.get_ptr_mut(id as u32)?;
        // SAFETY: as in `slot`; control writes the word by a syscall that copies it whole.
        Some(Server::from_word(unsafe { word.read_volatile() }))
    }

    #[inline(always)]
    fn count_quic(&self, event: QuicEvent) {
        add_one(&maps::QUIC_EVENTS, event as u32);
    }

    #[inline(always)]
    fn limits(&self) -> Option<&Limits> {
        maps::LIMITS.get(0)
    }

    #[inline(always)]
    fn meter(&self) -> Meter {
        maps::METER.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn keep_meter(&self, meter: Meter) {
        if let Some(kept) = maps::METER.get_ptr_mut(0) {
            // SAFETY: this core's own entry; XDP programs are not interrupted by one another on a core.
            unsafe { *kept = meter };
        }
    }

    #[inline(always)]
    fn allowance(&self, source: &[u8; 16]) -> Option<impl AllowanceCell> {
        maps::NEW_FLOWS.get_ptr_mut(source).map(Left)
    }

    #[inline(always)]
    fn keep_allowance(&self, source: &[u8; 16], allowance: Allowance) {
        // An LRU map makes room; where it cannot, the source is as if it had not been seen.
        let _ = maps::NEW_FLOWS.insert(source, allowance.to_word(), 0);
    }

    #[inline(always)]
    fn source_set(&self, vip: u32) -> Option<u32> {
        let set = maps::SOURCE_SETS.get_ptr_mut(vip)?;
        // SAFETY: as in `slot`, of four bytes.
        Some(unsafe { set.read_volatile() })
    }

    #[inline(always)]
    fn source_tree(&self, set: u32) -> Option<&SourceTree> {
        maps::SOURCE_TREES.get(set)
    }

    #[inline(always)]
    fn source(&self, key: &SourceKey) -> Option<u32> {
        // SAFETY: as in `vip`.
        unsafe { maps::SOURCES.get(key) }.copied()
    }

    #[inline(always)]
    fn tag_keys(&self) -> TagKeys {
        maps::META.get(0).map_or_else(TagKeys::default, |meta| meta.tag_keys)
    }

    #[inline(always)]
    fn flow(&self, _: &FlowKey, tag: FlowTag) -> Option<impl FlowCell> {
        if self.is_witnessed { flows::find_apart(tag) } else { flows::find(tag) }
    }

    #[inline(always)]
    fn record(&self, _: &FlowKey, tag: FlowTag, record: FlowRecord) -> Option<()> {
        if self.is_witnessed {
            flows::begin_apart(self.room, tag, record)
        } else {
            flows::begin(self.room, tag, record)
        }
    }

    #[inline(always)]
    fn inserts(&self) -> Inserts {
        maps::INSERTS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn keep_inserts(&self, inserts: Inserts) {
        if let Some(kept) = maps::INSERTS.get_ptr_mut(0) {
            // SAFETY: this core's own entry; XDP programs are not interrupted by one another on a core.
            unsafe { *kept = inserts };
        }
    }

    #[inline(always)]
    fn refused_at(&self) -> u32 {
        // SAFETY: an array value on a four-byte address, stored whole by other cores.
        maps::REFUSED_AT.get_ptr(0).map_or(0, |tick| unsafe { tick.read_volatile() })
    }

    #[inline(always)]
    fn keep_refused_at(&self, tick: u32) {
        if let Some(kept) = maps::REFUSED_AT.get_ptr_mut(0) {
            // SAFETY: as in `refused_at`.
            unsafe { kept.write_volatile(tick) };
        }
    }

    #[inline(always)]
    fn now_ticks(&self) -> u32 {
        // SAFETY: a helper without arguments.
        (unsafe { helpers::bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
    }

    #[inline(always)]
    fn hop_ticks(&self) -> u32 {
        // SAFETY: a helper without arguments, which the verifier replaces by one load.
        (unsafe { helpers::bpf_jiffies64() } >> HOP_TICK_SHIFT) as u32
    }

    #[inline(always)]
    fn hop(&self, backend: u16) -> Option<HopEntry> {
        maps::HOPS.get(backend as u32).copied()
    }

    #[inline(always)]
    fn keep_hop(&self, backend: u16, entry: HopEntry) {
        if let Some(kept) = maps::HOPS.get_ptr_mut(backend as u32) {
            // SAFETY: this core's own entry; XDP programs are not interrupted by one another on a core.
            unsafe { *kept = entry };
        }
    }

    #[inline(always)]
    fn link(&self, interface: u32) -> Option<&LinkEntry> {
        // SAFETY: as in `vip`.
        unsafe { maps::LINKS.get(&interface) }
    }

    #[inline(always)]
    fn route(&self, ingress: u32, route: &Route) -> Result<NextHop, Unroutable> {
        // Not on the stack, of which a program has but 512 bytes.
        let room = maps::QUESTION.get_ptr_mut(self.room).ok_or(Unroutable::NoRoute)?;
        // SAFETY: this core's own entry, of this size and alignment; XDP programs are not interrupted by one another on a
        // core. Integers and byte arrays: all zero is a question about nothing.
        let params = unsafe {
            room.write([0; _]);
            &mut *room.cast::<bpf_fib_lookup>()
        };
        params.ifindex = ingress;
        params.l4_protocol = route.protocol;
        params.__bindgen_anon_1.tot_len = route.length;
        match route.family {
            Family::V4 => {
                params.family = AF_INET;
                params.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(route.source.last());
                params.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(route.destination.last());
            }
            Family::V6 => {
                params.family = AF_INET6;
                params.__bindgen_anon_3.ipv6_src = double_words(route.source);
                params.__bindgen_anon_4.ipv6_dst = double_words(route.destination);
            }
        }
        let size = size_of::<bpf_fib_lookup>() as i32;
        // SAFETY: the context is the kernel's, and `params` is `size` bytes of a map of ours.
        let answer = unsafe { helpers::bpf_fib_lookup(self.ctx.as_ptr(), &raw mut *params, size, 0) };
        // Negative: a bad question, such as an interface that is gone.
        if answer < 0 {
            return Err(Unroutable::NoRoute);
        }
        match answer as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => {
                let [a, b, c] = mac_words(params.dmac);
                let [d, e, f] = mac_words(params.smac);
                // SAFETY: given a length, the helper has overwritten it with the MTU, in host order.
                let mtu = unsafe { params.__bindgen_anon_1.mtu_result };
                let addresses = [a, b, c, d, e, f];
                Ok(NextHop { interface: params.ifindex, addresses, tags: [0; 2], mtu })
            }
            BPF_FIB_LKUP_RET_NO_NEIGH => Err(Unroutable::NoNeighbour),
            BPF_FIB_LKUP_RET_FRAG_NEEDED => {
                // SAFETY: with this answer, too, the helper has overwritten the length with the MTU.
                Err(Unroutable::TooLong { mtu: unsafe { params.__bindgen_anon_1.mtu_result } })
            }
            _ => Err(Unroutable::NoRoute),
        }
    }

    #[inline(always)]
    fn may_answer(&self) -> bool {
        let Some(budget) = maps::ANSWERS.get_ptr_mut(0) else { return false };
        // SAFETY: this core's own entry; XDP programs are not interrupted by one another on a core.
        let budget = unsafe { &mut *budget };
        let tick = self.now_ticks();
        if budget.tick != tick {
            (budget.tick, budget.spent) = (tick, 0);
        }
        let may = budget.spent < ANSWERS_PER_TICK;
        budget.spent += may as u32;
        may
    }

    #[inline(always)]
    fn count_syn(&self) -> bool {
        let Some(syns) = maps::SYNS.get_ptr_mut(0) else { return false };
        // SAFETY: this core's own entry; XDP programs are not interrupted by one another on a core.
        let syns = unsafe { &mut *syns };
        let tick = self.now_ticks();
        if syns.tick != tick {
            (syns.tick, syns.spent) = (tick, 0);
        }
        syns.spent += 1;
        syns.spent > SYNS_PER_TICK
    }

    #[inline(always)]
    fn is_flooded(&self) -> bool {
        let tick = self.now_ticks();
        maps::SYNS.get(0).is_some_and(|syns| syns.tick == tick && syns.spent >= SYNS_PER_TICK)
    }

    #[inline(always)]
    fn spread(&self) -> Option<&Spread> {
        maps::SPREAD.get(0)
    }

    #[inline(always)]
    fn is_spread(&self, port: Be16) -> bool {
        let (word, bit) = port_bit(port.host());
        maps::SPREAD_PORTS.get(word).is_some_and(|ports| ports & bit != 0)
    }

    #[inline(always)]
    fn core_of(&self, worker: u32) -> Option<u32> {
        maps::SPREAD_CORES.get(worker).copied()
    }

    #[inline(always)]
    fn own_core(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { helpers::bpf_get_smp_processor_id() }
    }

    #[inline(always)]
    fn move_to(&self, core: u32) -> bool {
        maps::SPREAD_CPUS.redirect(core, 0).is_ok()
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        add_one(&maps::REASONS, reason as u32);
        if reason.drops() {
            count_drop(self.ctx.ingress_ifindex() as u32, reason);
        }
    }

    #[inline(always)]
    fn count_flow(&self, event: FlowEvent) {
        add_one(&maps::FLOW_EVENTS, event as u32);
    }

    #[inline(always)]
    fn count_traffic(&self, vip: u32, backend: u16, bytes: u64, new_flow: bool) {
        add_traffic(&maps::VIP_TRAFFIC, vip, bytes, new_flow);
        add_traffic(&maps::BACKEND_TRAFFIC, backend as u32, bytes, new_flow);
    }
}

#[inline(always)]
pub(super) fn double_words(address: Address) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.bytes();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

#[inline(always)]
const fn mac_words(address: [u8; 6]) -> [u16; 3] {
    let [a, b, c, d, e, f] = address;
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]), u16::from_ne_bytes([e, f])]
}

const _: () = assert!(size_of::<bpf_fib_lookup>() == size_of::<[u64; 8]>());
