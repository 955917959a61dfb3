//! The kernel behind the library's traits. The only file with raw pointers, with those below it.

mod cookie;
pub(crate) mod lookup;
pub(crate) mod probe;
mod spread;

use core::{
    mem::{offset_of, size_of},
    ptr,
};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup,
        bpf_sock, xdp_action,
    },
    helpers::generated as helpers,
    maps::{PerCpuArray, lpm_trie::Key},
    programs::{SkReuseportContext, XdpContext},
};
use lb_abi::{
    backend::BackendEntry,
    be::Be16,
    bounds::{ANSWERS_PER_TICK, WORKERS_MAX},
    counter::{FlowEvent, Traffic},
    flow::{CLOSING, FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    link::LinkEntry,
    meta::Meta,
    names::CALL_COOKIE,
    reason::Reason,
    slot::{Slot, TICK_SHIFT},
    spread::Spread,
    steer::{LOAD_LAGGING, MODE_CORE, STEER_LOOKED_UP, STEER_RELIEVE, SteerCounters, SteerEntry, SteerKey},
    vip::{VipEntry, VipKey},
};
use lb_ebpf::{
    address::Address,
    checksum::Sum,
    env::{Env, FlowCell, NextHop, Route, Unroutable},
    numbers::{Family, protocol},
    packet::Packet,
    verdict::Verdict,
};

use crate::maps;

/// `enum sk_action` of the kernel.
pub(crate) const SK_PASS: u32 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the kernel is told for a verdict.
#[inline(always)]
pub(crate) fn action(ctx: &XdpContext, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Cookie => call(ctx, CALL_COOKIE),
        Verdict::Moved => xdp_action::XDP_REDIRECT,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Transmit => xdp_action::XDP_TX,
        // SAFETY: a helper without pointers. It answers XDP_REDIRECT, or XDP_ABORTED for flags, which are 0.
        Verdict::Redirect { interface } => unsafe { helpers::bpf_redirect(interface, 0) as u32 },
    }
}

/// Calls a program, which does not return. Where it is missing, which the loader does not let happen, the kernel has the
/// packet.
#[inline(always)]
fn call(ctx: &XdpContext, program: u32) -> u32 {
    // SAFETY: the context is the kernel's, and the called programs are of the same kind.
    unsafe { maps::PROGRAMS.tail_call(ctx, program) };
    add_one(&maps::REASONS, Reason::NotOurs as u32);
    xdp_action::XDP_PASS
}

/// The frame of an XDP context.
pub(crate) struct XdpPacket<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Address of `len` bytes at offset `at`, inside the frame.
    #[inline(always)]
    fn at(&self, at: usize, len: usize) -> Option<*mut u8> {
        let start = self.ctx.data() + at;
        if start + len > self.ctx.data_end() { None } else { Some(start as *mut u8) }
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn total_len(&self) -> usize {
        // SAFETY: the context is the kernel's.
        (unsafe { helpers::bpf_xdp_get_buff_len(self.ctx.ctx) }) as usize
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        let start = self.at(at, 2 * N)?;
        // SAFETY: `at` found 2 N bytes inside the frame, and the verifier checks that it did. Any bytes are
        // valid. Frames begin on an even address in every driver; where one did not, the load would still be
        // right.
        Some(unsafe { start.cast::<[u16; N]>().read() })
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, words: [u16; N]) -> Option<()> {
        let start = self.at(at, 2 * N)?;
        // SAFETY: as in `load`; the frame is ours alone while the program runs.
        unsafe { start.cast::<[u16; N]>().write(words) };
        Some(())
    }

    #[inline(always)]
    fn sum<const LEN: usize>(&self, at: usize) -> Option<Sum> {
        let start = self.at(at, LEN)?;
        // What the helper takes at once before Linux 6.13.
        const PART: usize = 512;
        const { assert!(LEN.is_multiple_of(4) && LEN <= 3 * PART) };
        let part = |from: usize, len: usize| {
            // SAFETY: `at` found `LEN` bytes inside the frame, and these are some of them; the helper only reads.
            let sum = unsafe {
                let start = start.add(from).cast();
                helpers::bpf_csum_diff(ptr::null_mut(), 0, start, len as u32, 0)
            };
            Sum::of_doubles(sum as u32)
        };
        let mut sum = part(0, if LEN < PART { LEN } else { PART });
        if LEN > PART {
            sum = sum.plus(part(PART, if LEN < 2 * PART { LEN - PART } else { PART }));
        }
        if LEN > 2 * PART {
            sum = sum.plus(part(2 * PART, LEN - 2 * PART));
        }
        Some(sum)
    }

    #[inline(always)]
    fn move_head(&mut self, delta: i32) -> Option<()> {
        // SAFETY: the context is the kernel's. Addresses from before are not used again: `at` makes each anew.
        let error = unsafe { helpers::bpf_xdp_adjust_head(self.ctx.ctx, delta) };
        if error == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) -> Option<()> {
        let delta = len as i32 - self.total_len() as i32;
        // SAFETY: as in `move_head`. Cut off is only what is there: a frame is never made longer.
        let error = unsafe { if delta > 0 { -1 } else { helpers::bpf_xdp_adjust_tail(self.ctx.ctx, delta) } };
        if error == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}

/// Maps, routes and clock.
pub(crate) struct Kernel<'a> {
    ctx: &'a XdpContext,
}

impl<'a> Kernel<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }
}

impl Env for Kernel<'_> {
    #[inline(always)]
    fn meta(&self) -> Option<&Meta> {
        maps::META.get(0)
    }

    #[inline(always)]
    fn denied_v4(&self, source: [u8; 4]) -> bool {
        maps::DENY_V4.get(Key::new(32, source)).is_some()
    }

    #[inline(always)]
    fn denied_v6(&self, source: [u8; 16]) -> bool {
        maps::DENY_V6.get(Key::new(128, source)).is_some()
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<&VipEntry> {
        // SAFETY: control replaces entries whole, and the kernel keeps the old one until the program ends
        // (RCU).
        unsafe { maps::VIPS.get(key) }
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
    fn backend(&self, id: u16) -> Option<&BackendEntry> {
        maps::BACKENDS.get(id as u32)
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
        let room = maps::QUESTION.get_ptr_mut(0).ok_or(Unroutable::NoRoute)?;
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
    fn is_flooded(&self) -> bool {
        cookie::is_flooded(self)
    }

    #[inline(always)]
    fn spread(&self) -> Option<&Spread> {
        spread::spread()
    }

    #[inline(always)]
    fn is_spread(&self, port: Be16) -> bool {
        spread::is_spread(port)
    }

    #[inline(always)]
    fn core_of(&self, worker: u32) -> Option<u32> {
        spread::core_of(worker)
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

/// A value of map `FLOWS` as one word: hash map values lie on eight-byte addresses.
struct Record(*mut u64);

impl FlowCell for Record {
    #[inline(always)]
    fn load(&self) -> FlowRecord {
        // SAFETY: a value of the map, which the kernel keeps mapped while the program runs. Preallocated
        // elements may be given to another flow once they are deleted (Documentation/bpf/map_hash.rst, v6.18):
        // nothing is ever replaced by an update, and control deletes only what no running program stores to
        // (`lb::steering::settle`).
        FlowRecord::from_word(unsafe { self.0.read_volatile() })
    }

    #[inline(always)]
    fn store(&self, record: FlowRecord) {
        // SAFETY: as in `load`.
        unsafe { self.0.write_volatile(record.to_word()) };
    }

    #[inline(always)]
    fn touch(&self, seen: u32) {
        // SAFETY: as in `load`; four aligned bytes of the value.
        unsafe { self.0.byte_add(offset_of!(FlowRecord, seen)).cast::<u32>().write_volatile(seen) };
    }

    #[inline(always)]
    fn close(&self) {
        // SAFETY: as in `load`; a byte of the value.
        unsafe { self.0.byte_add(offset_of!(FlowRecord, state)).cast::<u8>().write_volatile(CLOSING) };
    }
}

#[inline(always)]
fn double_words(address: Address) -> [u32; 4] {
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

#[inline(always)]
fn add_one(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: this core's own counter; XDP programs are not interrupted by one another on a core.
        unsafe { *counter += 1 };
    }
}

#[inline(always)]
fn add_traffic(counters: &PerCpuArray<Traffic>, index: u32, bytes: u64, new_flow: bool) {
    if let Some(traffic) = counters.get_ptr_mut(index) {
        // SAFETY: as in `add_one`.
        unsafe {
            (*traffic).packets += 1;
            (*traffic).bytes += bytes;
            (*traffic).new_flows += new_flow as u64;
        }
    }
}

/// Chooses a socket for what the kernel is about to deliver, and counts how.
#[inline(always)]
pub(crate) fn steer(ctx: &SkReuseportContext) {
    let Some(key) = steer_key(ctx) else { return };
    // SAFETY: as in `Env::vip`.
    let Some(entry) = (unsafe { maps::STEER_LISTENERS.get(&key) }) else { return };
    let Some(counters) = maps::STEER_COUNTERS.get_ptr_mut(entry.listener) else { return };
    if relieve(ctx, entry) {
        add_one(&maps::STEER_RELIEVED, entry.listener);
        return;
    }
    if entry.mode == MODE_CORE {
        if let Some(worker) = worker_of_core()
            && choose(ctx, entry, worker)
        {
            // SAFETY: this core's own counters. A receive in process context may lose one to an interrupt.
            unsafe { (*counters).by_core += 1 };
            return;
        }
        // SAFETY: as above.
        unsafe { (*counters).missing += 1 };
    }
    if choose(ctx, entry, worker_of_hash(ctx.hash(), entry.workers)) {
        // SAFETY: as above.
        unsafe { (*counters).by_hash += 1 };
    } else if entry.mode != MODE_CORE {
        // SAFETY: as above.
        unsafe { (*counters).missing += 1 };
    }
}

/// Gives a new connection whose worker lags to one that does not, and says whether it did. Datagrams stay: each would
/// be asked for anew, and a flow's would part.
#[inline(always)]
fn relieve(ctx: &SkReuseportContext, entry: &SteerEntry) -> bool {
    if entry.flags & STEER_RELIEVE == 0 || ctx.ip_protocol() != protocol::TCP as u32 {
        return false;
    }
    let hash = ctx.hash();
    let own = if entry.mode == MODE_CORE { worker_of_core() } else { None };
    let own = own.unwrap_or_else(|| worker_of_hash(hash, entry.workers));
    if load(own) < LOAD_LAGGING {
        return false;
    }
    // Others by other bits of the hash: two tries find one among many, and cost nothing when all lag.
    let (one, two) = (hash.rotate_left(11), hash.rotate_left(21));
    let other = worker_of_hash(one, entry.workers);
    let other = if load(other) < LOAD_LAGGING { other } else { worker_of_hash(two, entry.workers) };
    load(other) < LOAD_LAGGING && choose(ctx, entry, other)
}

#[inline(always)]
fn load(worker: u32) -> u32 {
    maps::STEER_LOADS.get(worker).copied().unwrap_or(0)
}

/// The address that the group is bound to.
#[inline(always)]
fn steer_key(ctx: &SkReuseportContext) -> Option<SteerKey> {
    // SAFETY: the verifier knows `sk` as a socket of the group, never null.
    let sk = unsafe { (*ctx.md).__bindgen_anon_3.sk };
    bound_to(sk, ctx.ip_protocol() as u8)
}

/// The address that a socket is bound to.
#[inline(always)]
fn bound_to(sk: *mut bpf_sock, protocol: u8) -> Option<SteerKey> {
    // SAFETY: the verifier knows `sk` as a socket, not null, and its fields as readable.
    let (family, port, v4, v6) = unsafe {
        let family = ptr::read_volatile(&raw const (*sk).family);
        let port = ptr::read_volatile(&raw const (*sk).src_port);
        let v4 = ptr::read_volatile(&raw const (*sk).src_ip4);
        let v6 = [
            ptr::read_volatile(&raw const (*sk).src_ip6[0]),
            ptr::read_volatile(&raw const (*sk).src_ip6[1]),
            ptr::read_volatile(&raw const (*sk).src_ip6[2]),
            ptr::read_volatile(&raw const (*sk).src_ip6[3]),
        ];
        (family, port, v4, v6)
    };
    let address = if family == AF_INET as u32 {
        Address::v4(halves(v4)).bytes()
    } else if family == AF_INET6 as u32 {
        let [[a, b], [c, d], [e, f], [g, h]] = v6.map(halves);
        Address::v6([a, b, c, d, e, f, g, h]).bytes()
    } else {
        return None;
    };
    // `src_port` of struct bpf_sock is in host order, unlike everything else there.
    Some(SteerKey { address, port: Be16::new(port as u16), protocol, pad: 0 })
}

#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

#[inline(always)]
fn worker_of_core() -> Option<u32> {
    // SAFETY: a helper without arguments.
    let core = unsafe { helpers::bpf_get_smp_processor_id() };
    maps::STEER_CORES.get(core).copied()?.checked_sub(1)
}

/// The kernel's hash of the 4-tuple also orders its connection table; multiplied by an odd constant (2^32 /
/// golden ratio), so that a worker's connections are not neighbours there.
#[inline(always)]
fn worker_of_hash(hash: u32, workers: u32) -> u32 {
    let mixed = hash.wrapping_mul(0x9e37_79b1);
    ((mixed as u64 * workers as u64) >> 32) as u32
}

/// Whether the worker's socket was there and is now chosen.
#[inline(always)]
fn choose(ctx: &SkReuseportContext, entry: &SteerEntry, worker: u32) -> bool {
    let index = entry.listener.wrapping_mul(WORKERS_MAX).wrapping_add(worker);
    if entry.flags & STEER_LOOKED_UP == 0 {
        return maps::STEER_SOCKETS.select_reuseport(ctx, index).is_ok();
    }
    let (map, mut index) = ((&raw const maps::LOOKUP_SOCKETS).cast_mut().cast(), index);
    // SAFETY: the context is the kernel's, the map one of those that the helper takes, and the index on our stack.
    unsafe { helpers::bpf_sk_select_reuseport(ctx.md, map, (&raw mut index).cast(), 0) == 0 }
}

const _: () = assert!(size_of::<bpf_fib_lookup>() == size_of::<[u64; 8]>());
const _: () = assert!(size_of::<SteerCounters>() == 24 && size_of::<FlowRecord>() == size_of::<u64>());
