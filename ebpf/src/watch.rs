//! Programs that watch the packet path at work: the same walk, with a witness between it and the kernel.

use core::{marker::PhantomData, mem::size_of, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_RB_NO_WAKEUP,
        xdp_action::{XDP_ABORTED, XDP_PASS},
        xdp_md,
    },
    helpers::generated as helpers,
    programs::XdpContext,
};
use lb_abi::{
    capture::{
        CaptureCounters, CaptureFilter, CaptureRecord, CaptureScratch, FLAG_PAYLOAD, PLACE_SHOW, PLACE_WALK,
        SNAP_MAX, spend,
    },
    hop::HopEntry,
    reason::Reason,
    slot::Slot,
    trace::Trace,
};
use lb_ebpf::{
    address::Address,
    capture::{self, Sight},
    checksum::Sum,
    env::Env,
    flow::Flow,
    ingress, limit,
    packet::Packet,
    route::{Route, Unroutable},
    select::{Pick, Stage},
    verdict::{Outcome, Verdict},
    witness::{self, Dry, Kind, Live, Notes, Witness},
};

use crate::{
    ctx::{
        self,
        apart::{self, lb_exceeds, lb_too_big},
        frame::XdpPacket,
        kernel::Kernel,
    },
    maps,
};

/// Where a kind of run has what is its own.
trait Traced: Kind {
    /// Its room.
    const ROOM: u32;
    /// Address of its trace. None is never so: arrays of one entry have it.
    fn trace() -> Option<*mut Trace>;
}

impl Traced for Live {
    const ROOM: u32 = maps::ROOM;

    #[inline(always)]
    fn trace() -> Option<*mut Trace> {
        // SAFETY: one entry of a map; only an address is made.
        maps::CAPTURE_SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &raw mut (*scratch).record.trace })
    }
}

impl Traced for Dry {
    const ROOM: u32 = maps::ROOM_WHY;

    #[inline(always)]
    fn trace() -> Option<*mut Trace> {
        // SAFETY: as above.
        maps::WHY.get_ptr_mut(0).map(|why| unsafe { &raw mut (*why).trace })
    }
}

/// A trace in a map.
struct InMap<'a, K> {
    trace: *mut Trace,
    ctx: &'a XdpContext,
    kind: PhantomData<K>,
}

impl<'a, K: Traced> InMap<'a, K> {
    #[inline(always)]
    fn of(ctx: &'a XdpContext) -> Option<Self> {
        Some(Self { trace: K::trace()?, ctx, kind: PhantomData })
    }
}

impl<K: Traced> Notes for InMap<'_, K> {
    #[inline(always)]
    fn change<R>(&self, edit: impl FnOnce(&mut Trace) -> R) -> R {
        // SAFETY: a value of a map, which the kernel keeps mapped while the program runs. It is this run's alone:
        // of `WHY` there is one user, who waits for the program's end; the scratch is this core's own, and XDP
        // programs are not interrupted by one another on a core. No edit calls another.
        edit(unsafe { &mut *self.trace })
    }

    #[inline(always)]
    fn pick_moving<E: Env>(&self, _: &E, flow: &Flow, idle: u32, stage: Stage, slot: Slot) -> Pick {
        apart::ask_moving(K::ROOM, flow);
        let (tag, rest) = (apart::tag(flow), apart::moving(idle, stage));
        apart::pick_of(if K::LIVE {
            lb_pick_moving_live(slot.0, tag, rest)
        } else {
            lb_pick_moving_dry(slot.0, tag, rest)
        })
    }

    #[inline(always)]
    fn find_hop<E: Env>(
        &self,
        _: &E,
        backend: u16,
        wanted: HopEntry,
        route: &Route,
    ) -> Result<(), Unroutable> {
        let (to, from) = apart::ask_hop(K::ROOM, backend, wanted, route);
        apart::hop_result(if K::LIVE {
            lb_find_hop_live(self.ctx.ctx, to, from)
        } else {
            lb_find_hop_dry(self.ctx.ctx, to, from)
        })
    }

    #[inline(always)]
    fn exceeds<E: Env>(&self, _: &E, source: Address) -> bool {
        // Nothing of it is noted: only what is kept differs.
        let (high, low) = source.halves();
        (if K::LIVE { lb_exceeds(high, low) } else { lb_exceeds_dry(high, low) }) != 0
    }

    #[inline(always)]
    fn tell_too_big<P: Packet, E: Env>(&self, _: &E, _: &mut P, fits: u16) -> Result<(), Reason> {
        // Nothing of it is noted: only the budget differs.
        apart::told_result(if K::LIVE {
            lb_too_big(self.ctx.ctx, fits as u64)
        } else {
            lb_too_big_dry(self.ctx.ctx, fits as u64)
        })
    }

    #[inline(always)]
    fn listener<E: Env>(&self, _: &E, flow: &Flow, stage: Option<Stage>) -> Outcome {
        let (source, destination, rest) = apart::ask_listener(flow, stage);
        apart::outcome(if K::LIVE {
            lb_listener_live(source.0, source.1, destination.0, destination.1, rest)
        } else {
            lb_listener_dry(source.0, source.1, destination.0, destination.1, rest)
        })
    }
}

// As the functions of `ctx::apart`, before the witness that the caller has.

/// `lb_pick_moving`, live.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_pick_moving_live(slot: u64, tag: u64, rest: u64) -> u64 {
    pick_moving::<Live>(slot, tag, rest)
}

/// `lb_pick_moving`, dry.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_pick_moving_dry(slot: u64, tag: u64, rest: u64) -> u64 {
    pick_moving::<Dry>(slot, tag, rest)
}

#[inline(always)]
fn pick_moving<K: Traced>(slot: u64, tag: u64, rest: u64) -> u64 {
    // Nothing but maps is asked.
    let nothing = XdpContext::new(ptr::null_mut());
    let Some(trace) = InMap::<K>::of(&nothing) else { return 0 };
    let kernel = Kernel::within(&nothing, K::ROOM);
    apart::pick_moving(&Witness::<_, _, K>::new(&kernel, &trace), K::ROOM, slot, tag, rest)
}

/// `lb_find_hop`, live.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_find_hop_live(ctx: *mut xdp_md, to: u64, from: u64) -> u64 {
    find_hop::<Live>(ctx, to, from)
}

/// `lb_find_hop`, dry.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_find_hop_dry(ctx: *mut xdp_md, to: u64, from: u64) -> u64 {
    find_hop::<Dry>(ctx, to, from)
}

#[inline(always)]
fn find_hop<K: Traced>(ctx: *mut xdp_md, to: u64, from: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Some(trace) = InMap::<K>::of(&ctx) else { return 2 };
    let kernel = Kernel::within(&ctx, K::ROOM);
    apart::find_hop(&Witness::<_, _, K>::new(&kernel, &trace), K::ROOM, to, from)
}

/// `lb_exceeds`, dry.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_exceeds_dry(high: u64, low: u64) -> u64 {
    // Nothing but maps is asked.
    let nothing = XdpContext::new(ptr::null_mut());
    let Some(trace) = InMap::<Dry>::of(&nothing) else { return 0 };
    let kernel = Kernel::new(&nothing);
    limit::exceeds(&Witness::<_, _, Dry>::new(&kernel, &trace), Address::of_halves(high, low)) as u64
}

/// `lb_too_big`, dry.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_too_big_dry(ctx: *mut xdp_md, fits: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    let Some(trace) = InMap::<Dry>::of(&ctx) else { return 2 };
    apart::tell_too_big(&ctx, &Witness::<_, _, Dry>::new(&Kernel::new(&ctx), &trace), fits)
}

/// `lb_listener`, live.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_listener_live(
    source_high: u64,
    source_low: u64,
    destination_high: u64,
    destination_low: u64,
    rest: u64,
) -> u64 {
    arrive::<Live>((source_high, source_low), (destination_high, destination_low), rest)
}

/// `lb_listener`, dry.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_listener_dry(
    source_high: u64,
    source_low: u64,
    destination_high: u64,
    destination_low: u64,
    rest: u64,
) -> u64 {
    arrive::<Dry>((source_high, source_low), (destination_high, destination_low), rest)
}

#[inline(always)]
fn arrive<K: Traced>(source: (u64, u64), destination: (u64, u64), rest: u64) -> u64 {
    // Nothing but maps is asked.
    let nothing = XdpContext::new(ptr::null_mut());
    let Some(trace) = InMap::<K>::of(&nothing) else { return 0 };
    let kernel = Kernel::within(&nothing, K::ROOM);
    apart::arrive(&Witness::<_, _, K>::new(&kernel, &trace), source, destination, rest)
}

/// A frame that is to have come in by some interface.
struct Pretended<'a> {
    frame: XdpPacket<'a>,
    ingress: u32,
}

impl Packet for Pretended<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.frame.len()
    }

    #[inline(always)]
    fn total_len(&self) -> usize {
        self.frame.total_len()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        self.frame.load(at)
    }

    #[inline(always)]
    fn load_doubles<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        self.frame.load_doubles(at)
    }

    #[inline(always)]
    fn load_quads<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        self.frame.load_quads(at)
    }

    #[inline(always)]
    fn store_doubles<const N: usize>(&mut self, at: usize, doubles: [u32; N]) -> Option<()> {
        self.frame.store_doubles(at, doubles)
    }

    #[inline(always)]
    fn store_quads<const N: usize>(&mut self, at: usize, quads: [u64; N]) -> Option<()> {
        self.frame.store_quads(at, quads)
    }

    #[inline(always)]
    fn sum<const LEN: usize>(&self, at: usize) -> Option<Sum> {
        self.frame.sum::<LEN>(at)
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) -> Option<()> {
        self.frame.cut(len)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, words: [u16; N]) -> Option<()> {
        self.frame.store(at, words)
    }

    #[inline(always)]
    fn move_head(&mut self, delta: i32) -> Option<()> {
        self.frame.move_head(delta)
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ingress
    }
}

/// Answers the question in `WHY`. `XDP_ABORTED`: there is none.
#[inline(always)]
pub(crate) fn why(ctx: &XdpContext) -> u32 {
    let Some(why) = maps::WHY.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the map's one entry; control wrote it before it ran the program, and reads it after.
    let ingress = unsafe { (*why).ingress };
    let Some(trace) = InMap::<Dry>::of(ctx) else { return XDP_ABORTED };
    let kernel = Kernel::within(ctx, Dry::ROOM);
    let verdict = ingress::ingress(
        &mut Pretended { frame: XdpPacket::new(ctx), ingress },
        &Witness::<_, _, Dry>::new(&kernel, &trace),
    );
    trace.change(|trace| witness::end(trace, verdict, ingress));
    XDP_PASS
}

/// Goes on in `lb_capture`, if that is there: then it does not return. Else it costs a patched-out jump.
#[inline(always)]
pub(crate) fn hand_over(ctx: &XdpContext) {
    // SAFETY: map and context are the kernel's; nothing here has to be dropped.
    unsafe { maps::CAPTURE_PROGRAM.tail_call(ctx, 0) };
}

/// Begins the record of a packet that the capture may want, and goes on in `lb_capture_walk`.
///
/// A capture is three programs in a row, since each has a stack of its own: the walk alone fills one. Control puts
/// the first one into its place last, and takes out no other.
#[inline(always)]
pub(crate) fn capture(ctx: &XdpContext) -> u32 {
    // Never so: arrays of one entry have it.
    let Some(filter) = maps::CAPTURE_FILTER.get(0) else { return XDP_ABORTED };
    let Some(scratch) = maps::CAPTURE_SCRATCH.get_ptr_mut(0) else { return XDP_ABORTED };
    let Some(counters) = maps::CAPTURE_COUNTERS.get_ptr_mut(0) else { return XDP_ABORTED };
    look_at(ctx, &XdpPacket::new(ctx), filter, scratch, counters);
    // SAFETY: map and context are the kernel's; nothing here has to be dropped.
    unsafe { maps::CAPTURE_PROGRAM.tail_call(ctx, PLACE_WALK) };
    XDP_ABORTED
}

/// Does what `lb_ingress` does, before a witness, and goes on in `lb_capture_show`.
#[inline(always)]
pub(crate) fn capture_walk(ctx: &XdpContext) -> u32 {
    let Some(scratch) = maps::CAPTURE_SCRATCH.get_ptr_mut(0) else { return XDP_ABORTED };
    let Some(trace) = InMap::<Live>::of(ctx) else { return XDP_ABORTED };
    let kernel = Kernel::new(ctx);
    let witness = Witness::<_, _, Live>::new(&kernel, &trace);
    let verdict = ingress::ingress(&mut XdpPacket::new(ctx), &witness);
    trace.change(|trace| witness::end(trace, verdict, ctx.ingress_ifindex() as u32));
    // `lb_nat` and `lb_cookie` are called at the end: a call does not return.
    let action = match verdict {
        Verdict::Translate => TRANSLATE,
        Verdict::Cookie => COOKIE,
        verdict => ctx::action(ctx, verdict),
    };
    // SAFETY: the scratch is this core's own; XDP programs are not interrupted by one another on a core.
    unsafe { (*scratch).action = action };
    // SAFETY: as in `capture`.
    unsafe { maps::CAPTURE_PROGRAM.tail_call(ctx, PLACE_SHOW) };
    finish(ctx, action)
}

/// Shows the packet to the capture if that wants it, and lets become of it what the walk said.
#[inline(always)]
pub(crate) fn capture_show(ctx: &XdpContext) -> u32 {
    let Some(filter) = maps::CAPTURE_FILTER.get(0) else { return XDP_ABORTED };
    let Some(scratch) = maps::CAPTURE_SCRATCH.get_ptr_mut(0) else { return XDP_ABORTED };
    let Some(counters) = maps::CAPTURE_COUNTERS.get_ptr_mut(0) else { return XDP_ABORTED };
    show(&Kernel::new(ctx), filter, scratch, counters);
    // SAFETY: the scratch is this core's own, as above.
    finish(ctx, unsafe { (*scratch).action })
}

/// No action of the kernel's: the packet goes on to `lb_nat`.
const TRANSLATE: u32 = u32::MAX;
/// The same to `lb_cookie`.
const COOKIE: u32 = u32::MAX - 1;

#[inline(always)]
fn finish(ctx: &XdpContext, action: u32) -> u32 {
    match action {
        TRANSLATE => ctx::action(ctx, Verdict::Translate),
        COOKIE => ctx::action(ctx, Verdict::Cookie),
        action => action,
    }
}

/// Begins the record of a packet: its first bytes as they came in, if it may be wanted, else none.
#[inline(always)]
fn look_at(
    ctx: &XdpContext,
    packet: &XdpPacket<'_>,
    filter: &CaptureFilter,
    scratch: *mut CaptureScratch,
    counters: *mut CaptureCounters,
) {
    // SAFETY: the scratch is this core's own; XDP programs are not interrupted by one another on a core.
    unsafe { (*scratch).record = CaptureRecord::default() };
    // SAFETY: a helper without arguments.
    if unsafe { helpers::bpf_get_prandom_u32() } > filter.sample {
        return;
    }
    // SAFETY: this core's own counters, as above.
    unsafe { (*counters).looked_at += 1 };
    let sight = Sight::of(packet);
    if !capture::may_want(filter, ctx.ingress_ifindex() as u32, &sight) {
        return;
    }
    let len = packet.len();
    let shown = if filter.flags & FLAG_PAYLOAD != 0 { len } else { sight.headers };
    let captured = shown.min(filter.snap as usize).min(SNAP_MAX);
    // Changes nothing, as it is never zero: said so that the verifier of Linux 6.1 sees it, too.
    const { assert!(SNAP_MAX.is_power_of_two()) };
    let captured = (captured.wrapping_sub(1) & (SNAP_MAX - 1)) + 1;
    // SAFETY: the scratch is this core's own, and `captured` bytes fit into its frame.
    unsafe {
        let frame = &raw mut (*scratch).frame;
        if helpers::bpf_xdp_load_bytes(ctx.as_ptr().cast(), 0, frame.cast(), captured as u32) != 0 {
            return;
        }
        let record = &raw mut (*scratch).record;
        (*record).ktime_ns = helpers::bpf_ktime_get_ns();
        (*record).length = len as u32;
        (*record).captured = captured as u32;
        (*record).ingress = ctx.ingress_ifindex() as u32;
    }
}

/// Puts the packet into the ring, if it is wanted and there is room.
#[inline(always)]
fn show(
    kernel: &Kernel<'_>,
    filter: &CaptureFilter,
    scratch: *mut CaptureScratch,
    counters: *mut CaptureCounters,
) {
    // SAFETY: this core's own, as above; the trace is written by nobody any more.
    let (record, counters) = unsafe { (&(*scratch).record, &mut *counters) };
    if record.captured == 0 || !capture::wants(filter, &record.trace) {
        return;
    }
    counters.wanted += 1;
    let captured = (record.captured as usize).min(SNAP_MAX);
    let len = size_of::<CaptureRecord>() + captured;
    let Some(budget) = maps::CAPTURE_BUDGET.get_ptr_mut(0) else { return };
    // SAFETY: a word of a map, read and written whole; see `capture::budget` for what cores do to each other.
    let spent =
        unsafe { spend(budget.read_volatile(), kernel.now_ticks(), len as u32, filter.bytes_per_tick) };
    let Some(spent) = spent else {
        counters.over_rate += 1;
        return;
    };
    // SAFETY: as above.
    unsafe { budget.write_volatile(spent) };
    // SAFETY: the scratch is `repr(C)` without gaps, so its first `len` bytes are the record and what was captured.
    let bytes = unsafe { core::slice::from_raw_parts(scratch.cast::<u8>(), len) };
    if maps::CAPTURE_RING.output::<[u8]>(bytes, BPF_RB_NO_WAKEUP.into()).is_ok() {
        counters.written += 1;
    } else {
        counters.ring_full += 1;
    }
}
