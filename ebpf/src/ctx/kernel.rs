//! Maps, routes and clock of the kernel.

use core::{mem::size_of, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup,
        xdp_md,
    },
    helpers::generated as helpers,
    programs::XdpContext,
};
use lb_abi::{
    activity,
    backend::BackendEntry,
    be::Be16,
    bounds::ANSWERS_PER_TICK,
    counter::FlowEvent,
    directory::{Bucket, PortRanges, VipSlot},
    flow::{FlowKey, FlowRecord, Inserts},
    hop::{HOP_TICK_SHIFT, HopEntry},
    lengths::{DENY_V4, DENY_V6, Lengths},
    limit::{Allowance, Limits, Meter},
    link::LinkEntry,
    meta::Meta,
    quic::{QuicEntry, QuicEvent, Server},
    reason::Reason,
    slot::{Slot, TICK_SHIFT},
    source::{SourceKey, SourceTree},
    spread::Spread,
    vip::{VipEntry, VipKey},
};
use lb_ebpf::{
    address::Address,
    directory::{self, Place, VipFlags, Wanted},
    env::{AllowanceCell, Env, FlowCell, NextHop, Route, Unroutable, Words},
    flow::Flow,
    guard, hop, icmp,
    numbers::Family,
    packet::Packet,
    quic::Named,
    select::{self, Pick, Stage},
    verdict::Outcome,
};

use super::{
    AF_INET, AF_INET6, add_one, add_traffic,
    cells::{Left, Listed, Record},
    choose::{lb_exceeds, lb_quic_server, lb_source_table},
    cookie, count_drop,
    frame::XdpPacket,
    listener,
};
use crate::maps;

/// Maps, routes and clock.
pub(crate) struct Kernel<'a> {
    pub(super) ctx: &'a XdpContext,
    pub(super) room: u32,
}

impl<'a> Kernel<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self::within(ctx, maps::ROOM)
    }

    /// In one of the rooms of a core.
    #[inline(always)]
    pub(crate) fn within(ctx: &'a XdpContext, room: u32) -> Self {
        Self { ctx, room }
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
    fn locate(&self, wanted: Wanted) -> Place {
        let (high, low) = wanted.address.halves();
        Place(lb_locate(high, low, (wanted.port.0 as u64) << 8 | wanted.protocol as u64))
    }

    #[inline(always)]
    fn vip_flags(&self, address: Address) -> Option<VipFlags> {
        let (high, low) = address.halves();
        VipFlags::from_word(lb_vip_flags(high, low))
    }

    #[inline(always)]
    fn listed(&self, list: usize, source: Address) -> guard::Verdict {
        let (high, low) = source.halves();
        match lb_listed(list as u64, high, low) {
            1 => guard::Verdict::Allow,
            2 => guard::Verdict::Deny,
            _ => guard::Verdict::Unlisted,
        }
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
    fn quic_server<P: Packet>(&self, _: &P, at: usize, vip: u32) -> Named {
        Named::from_word(lb_quic_server(self.ctx.ctx, at as u64, vip as u64))
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
    fn exceeds(&self, source: Address) -> bool {
        let (high, low) = source.halves();
        lb_exceeds(high, low) != 0
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
    fn source_table(&self, source: Address, vip: u32) -> u32 {
        let (high, low) = source.halves();
        lb_source_table(high, low, vip as u64) as u32
    }

    #[inline(always)]
    fn pick_moving(&self, flow: &Flow, idle: u32, stage: Stage, slot: Slot) -> Pick {
        ask_moving(self.room, flow);
        pick_of(lb_pick_moving(slot.0, idle as u64, stage as u64))
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<impl FlowCell> {
        maps::FLOWS.get_ptr_mut(key).map(|record| Record(record.cast()))
    }

    #[inline(always)]
    fn record(&self, key: &FlowKey, record: FlowRecord) -> Option<()> {
        maps::FLOWS.insert(key, record, BPF_NOEXIST).ok()
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
    fn find_hop(&self, backend: u16, wanted: HopEntry, route: &Route) -> Result<(), Unroutable> {
        let (to, from) = ask_hop(self.room, backend, wanted, route);
        hop_result(lb_find_hop(self.ctx.ctx, to, from))
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
    fn tell_too_big<P: Packet>(&self, _: &mut P, fits: u16) -> Result<(), Reason> {
        told_result(lb_too_big(self.ctx.ctx, fits as u64))
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
    fn listener(&self, flow: &Flow, stage: Option<Stage>) -> Outcome {
        listener::reach(flow, stage)
    }

    #[inline(always)]
    fn count_syn(&self) -> bool {
        cookie::count_syn(self.now_ticks())
    }

    #[inline(always)]
    fn is_flooded(&self) -> bool {
        cookie::is_flooded(self.now_ticks())
    }

    #[inline(always)]
    fn spread(&self) -> Option<&Spread> {
        listener::spread()
    }

    #[inline(always)]
    fn is_spread(&self, port: Be16) -> bool {
        listener::is_spread(port)
    }

    #[inline(always)]
    fn core_of(&self, worker: u32) -> Option<u32> {
        listener::core_of(worker)
    }

    #[inline(always)]
    fn own_core(&self) -> u32 {
        listener::own_core()
    }

    #[inline(always)]
    fn move_to(&self, core: u32) -> bool {
        listener::move_to(core)
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

/// Flag of an update that may not replace. Source: `BPF_NOEXIST` of linux/bpf.h.
const BPF_NOEXIST: u64 = 1;

// What few packets need and the verifier would otherwise look through once for each way that leads there: global
// functions, which take and give numbers, are verified alone (Documentation/bpf, `btf_func_linkage`, since 5.6).

/// [`directory::locate`]; `what` is port and protocol.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_locate(high: u64, low: u64, what: u64) -> u64 {
    let address = Address::of_halves(high, low);
    with_maps(|maps| directory::locate(maps, Wanted::new(address, Be16((what >> 8) as u16), what as u8)).0)
}

/// [`directory::flags_of`] as a word; 0: none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_vip_flags(high: u64, low: u64) -> u64 {
    let address = Address::of_halves(high, low);
    with_maps(|maps| directory::flags_of(maps, address).map_or(0, VipFlags::to_word))
}

/// [`guard::verdict`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_listed(list: u64, high: u64, low: u64) -> u64 {
    let list = if list == DENY_V4 as u64 { DENY_V4 } else { DENY_V6 };
    with_maps(|maps| guard::verdict(maps, list, Address::of_halves(high, low)) as u64)
}

/// [`select::pick_moving`] for the flow in map `MOVING`: the backend's id, and in bit 16 whether a record began.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_pick_moving(slot: u64, idle: u64, stage: u64) -> u64 {
    with_maps(|maps| pick_moving(maps, maps::ROOM, slot, idle, stage))
}

/// Leaves a flow in map `MOVING`.
#[inline(always)]
pub(crate) fn ask_moving(room: u32, flow: &Flow) {
    if let Some(key) = maps::MOVING.get_ptr_mut(room) {
        // SAFETY: this core's own entry; XDP programs are not interrupted by one another on a core.
        unsafe { key.write(flow.key()) };
    }
}

/// Answers for it, as a number.
#[inline(always)]
pub(crate) fn pick_moving<E: Env>(env: &E, room: u32, slot: u64, idle: u64, stage: u64) -> u64 {
    let Some(key) = maps::MOVING.get(room) else { return 0 };
    let Pick { id, recorded } =
        select::pick_moving(env, key, idle as u32, Stage::of_number(stage as u8), Slot(slot));
    id as u64 | (recorded as u64) << 16
}

/// What the number stands for.
#[inline(always)]
pub(crate) const fn pick_of(number: u64) -> Pick {
    Pick { id: number as u16, recorded: number >> 16 != 0 }
}

/// [`hop::find`] for the route in map `ROUTE`: 0 if the answer is kept, else why not; above 2, the MTU that it exceeds.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_find_hop(ctx: *mut xdp_md, to: u64, from: u64) -> u64 {
    find_hop(&Kernel::new(&XdpContext::new(ctx)), maps::ROOM, to, from)
}

/// Leaves a route in map `ROUTE`: the numbers that are asked by.
#[inline(always)]
pub(crate) fn ask_hop(room: u32, backend: u16, wanted: HopEntry, route: &Route) -> (u64, u64) {
    if let Some(room) = maps::ROUTE.get_ptr_mut(room) {
        // SAFETY: this core's own entry; XDP programs are not interrupted by one another on a core.
        unsafe { (*room).write(*route) };
    }
    let HopEntry { tick, ingress, generation, .. } = wanted;
    (backend as u64 | (generation as u64) << 32, ingress as u64 | (tick as u64) << 32)
}

/// Answers for it, as a number.
#[inline(always)]
pub(crate) fn find_hop<E: Env>(env: &E, room: u32, to: u64, from: u64) -> u64 {
    let Some(room) = maps::ROUTE.get_ptr(room) else { return 2 };
    // SAFETY: this core's own entry, which the caller wrote.
    let route = unsafe { (*room).assume_init_ref() };
    let wanted = HopEntry {
        tick: (from >> 32) as u32,
        ingress: from as u32,
        generation: (to >> 32) as u32,
        ..HopEntry::default()
    };
    match hop::find(env, to as u16, wanted, route) {
        Ok(()) => 0,
        Err(Unroutable::NoNeighbour) => 1,
        Err(Unroutable::NoRoute) => 2,
        Err(Unroutable::TooLong { mtu }) => mtu as u64,
    }
}

/// What the number stands for.
#[inline(always)]
pub(crate) const fn hop_result(number: u64) -> Result<(), Unroutable> {
    match number as u16 {
        0 => Ok(()),
        1 => Err(Unroutable::NoNeighbour),
        2 => Err(Unroutable::NoRoute),
        mtu => Err(Unroutable::TooLong { mtu }),
    }
}

/// [`icmp::too_big`]: 0 if the packet is now the answer, else why not.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_too_big(ctx: *mut xdp_md, fits: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    tell_too_big(&ctx, &Kernel::new(&ctx), fits)
}

/// [`icmp::too_big`]'s answer as a number.
#[inline(always)]
pub(crate) fn tell_too_big<E: Env>(ctx: &XdpContext, env: &E, fits: u64) -> u64 {
    match icmp::too_big(&mut XdpPacket::new(ctx), env, fits as u16) {
        Ok(()) => 0,
        Err(Reason::EncapHeadroom) => 1,
        Err(_) => 2,
    }
}

/// What the number stands for.
#[inline(always)]
pub(crate) const fn told_result(number: u64) -> Result<(), Reason> {
    match number {
        0 => Ok(()),
        1 => Err(Reason::EncapHeadroom),
        _ => Err(Reason::Mtu),
    }
}

/// A kernel for who asks nothing but maps.
#[inline(always)]
pub(crate) fn with_maps(ask: impl FnOnce(&Kernel<'_>) -> u64) -> u64 {
    let nothing = XdpContext::new(ptr::null_mut());
    ask(&Kernel::new(&nothing))
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
