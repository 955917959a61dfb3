//! What is called apart from the path of a packet, as global functions.
//!
//! What few packets need, the verifier would otherwise look through once for each way that leads there. Global functions,
//! which take and give numbers, are verified alone (Documentation/bpf, `btf_func_linkage`, since 5.6).

use core::ptr;

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_abi::{
    be::Be16,
    hop::HopEntry,
    lengths::{DENY_V4, DENY_V6},
    reason::Reason,
    slot::Slot,
    tag::FlowTag,
};
use lb_ebpf::{
    address::Address,
    directory::{self, Place, VipFlags, Wanted},
    env::Env,
    flow::Flow,
    guard, hop, icmp, limit, listener,
    numbers::protocol,
    packet::Packet,
    parse::Ports,
    quic::{self, Named},
    route::{Route, Unroutable},
    select::{self, Pick, Stage},
    source,
    verdict::{Outcome, Verdict},
    walk::Walk,
};

use super::{frame::XdpPacket, kernel::Kernel};
use crate::maps;

impl Walk for Kernel<'_> {
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
    fn quic_server<P: Packet>(&self, _: &P, at: usize, vip: u32) -> Named {
        Named::from_word(lb_quic_server(self.ctx.ctx, at as u64, vip as u64))
    }

    #[inline(always)]
    fn exceeds(&self, source: Address) -> bool {
        let (high, low) = source.halves();
        lb_exceeds(high, low) != 0
    }

    #[inline(always)]
    fn source_table(&self, source: Address, vip: u32) -> u32 {
        let (high, low) = source.halves();
        lb_source_table(high, low, vip as u64) as u32
    }

    #[inline(always)]
    fn pick_moving(&self, flow: &Flow, idle: u32, stage: Stage, slot: Slot) -> Pick {
        ask_moving(self.room, flow);
        pick_of(lb_pick_moving(slot.0, tag(flow), moving(idle, stage)))
    }

    #[inline(always)]
    fn find_hop(&self, backend: u16, wanted: HopEntry, route: &Route) -> Result<(), Unroutable> {
        let (to, from) = ask_hop(self.room, backend, wanted, route);
        hop_result(lb_find_hop(self.ctx.ctx, to, from))
    }

    #[inline(always)]
    fn tell_too_big<P: Packet>(&self, _: &mut P, fits: u16) -> Result<(), Reason> {
        told_result(lb_too_big(self.ctx.ctx, fits as u64))
    }

    #[inline(always)]
    fn listener(&self, flow: &Flow, stage: Option<Stage>) -> Outcome {
        let (source, destination, rest) = ask_listener(flow, stage);
        outcome(lb_listener(source.0, source.1, destination.0, destination.1, rest))
    }
}

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

/// [`quic::server`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_quic_server(ctx: *mut xdp_md, at: u64, vip: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    // No headers are longer; so the verifier knows it, too.
    let at = at as usize & 0x7f;
    quic::server(&XdpPacket::new(&ctx), &Kernel::new(&ctx), at, vip as u32).to_word()
}

/// [`limit::exceeds`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_exceeds(high: u64, low: u64) -> u64 {
    with_maps(|maps| limit::exceeds(maps, Address::of_halves(high, low)) as u64)
}

/// [`source::table`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_source_table(high: u64, low: u64, vip: u64) -> u64 {
    with_maps(|maps| source::table(maps, Address::of_halves(high, low), vip as u32) as u64)
}

/// [`select::pick_moving`] for the flow in map `MOVING`: the backend's id, and in bit 16 whether a record began.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_pick_moving(slot: u64, tag: u64, rest: u64) -> u64 {
    with_maps(|maps| pick_moving(maps, maps::ROOM, slot, tag, rest))
}

/// [`Flow::tag`] of a flow, in five parts: `rest` holds both ports and the protocol.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_flow_tag(
    source_high: u64,
    source_low: u64,
    destination_high: u64,
    destination_low: u64,
    rest: u64,
) -> u64 {
    let flow = Flow {
        source: Address::of_halves(source_high, source_low),
        destination: Address::of_halves(destination_high, destination_low),
        ports: Ports { source: Be16(rest as u16), destination: Be16((rest >> 16) as u16) },
        protocol: (rest >> 32) as u8,
    };
    with_maps(|maps| flow.tag(&maps.tag_keys()).0)
}

/// Asks for it.
#[inline(always)]
pub(crate) fn tag(flow: &Flow) -> u64 {
    let (source, destination) = (flow.source.halves(), flow.destination.halves());
    let ports = flow.ports.source.0 as u64 | (flow.ports.destination.0 as u64) << 16;
    lb_flow_tag(source.0, source.1, destination.0, destination.1, ports | (flow.protocol as u64) << 32)
}

/// Idle time and stage in one number.
#[inline(always)]
pub(crate) const fn moving(idle: u32, stage: Stage) -> u64 {
    idle as u64 | (stage as u64) << 32
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
pub(crate) fn pick_moving<E: Env>(env: &E, room: u32, slot: u64, tag: u64, rest: u64) -> u64 {
    let Some(key) = maps::MOVING.get(room) else { return 0 };
    let (idle, stage) = (rest as u32, Stage::of_number((rest >> 32) as u8));
    let Pick { id, recorded } = select::pick_moving(env, key, FlowTag(tag), idle, stage, Slot(slot));
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

/// [`listener::arrive`] for a TCP flow, in three parts: `rest` holds both ports and, in bit 32, whether the packet opens
/// a connection. 0: the kernel has it where it is, 1: it is moved, 2: it goes on to `lb_cookie`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_listener(
    source_high: u64,
    source_low: u64,
    destination_high: u64,
    destination_low: u64,
    rest: u64,
) -> u64 {
    let (source, destination) = ((source_high, source_low), (destination_high, destination_low));
    with_maps(|maps| arrive(maps, source, destination, rest))
}

/// The numbers that [`arrive`] is asked by.
#[inline(always)]
pub(crate) fn ask_listener(flow: &Flow, stage: Option<Stage>) -> ((u64, u64), (u64, u64), u64) {
    let Ports { source, destination } = flow.ports;
    let opens = matches!(stage, Some(Stage::Opening)) as u64;
    let rest = source.0 as u64 | (destination.0 as u64) << 16 | opens << 32;
    (flow.source.halves(), flow.destination.halves(), rest)
}

/// Answers, as a number.
#[inline(always)]
pub(crate) fn arrive<E: Env>(env: &E, source: (u64, u64), destination: (u64, u64), rest: u64) -> u64 {
    let flow = Flow {
        source: Address::of_halves(source.0, source.1),
        destination: Address::of_halves(destination.0, destination.1),
        ports: Ports { source: Be16(rest as u16), destination: Be16((rest >> 16) as u16) },
        protocol: protocol::TCP,
    };
    let stage = if rest >> 32 != 0 { Some(Stage::Opening) } else { None };
    match listener::arrive(env, &flow, stage).verdict {
        Verdict::Moved => 1,
        Verdict::Cookie => 2,
        _ => 0,
    }
}

/// What the number stands for.
#[inline(always)]
pub(crate) const fn outcome(number: u64) -> Outcome {
    match number {
        1 => Outcome { reason: Reason::Spread, verdict: Verdict::Moved },
        2 => Outcome { reason: Reason::NotOurs, verdict: Verdict::Cookie },
        _ => Outcome { reason: Reason::NotOurs, verdict: Verdict::Pass },
    }
}

/// A kernel for who asks nothing but maps.
#[inline(always)]
fn with_maps(ask: impl FnOnce(&Kernel<'_>) -> u64) -> u64 {
    let nothing = XdpContext::new(ptr::null_mut());
    ask(&Kernel::new(&nothing))
}
