//! Packets for listeners of this box: the maps of what is spread over cores, and the function of its own that asks them.

use aya_ebpf::helpers::generated as helpers;
use lb_abi::{
    be::Be16,
    reason::Reason,
    spread::{Spread, port_bit},
};
use lb_ebpf::{
    address::Address,
    env::Env,
    flow::Flow,
    listener,
    numbers::protocol,
    parse::Ports,
    select::Stage,
    verdict::{Outcome, Verdict},
};

use super::kernel::with_maps;
use crate::maps;

/// See [`Env::listener`].
#[inline(always)]
pub(super) fn reach(flow: &Flow, stage: Option<Stage>) -> Outcome {
    let (source, destination, rest) = ask(flow, stage);
    outcome(lb_listener(source.0, source.1, destination.0, destination.1, rest))
}

/// See [`Env::spread`].
#[inline(always)]
pub(super) fn spread<'a>() -> Option<&'a Spread> {
    maps::SPREAD.get(0)
}

/// See [`Env::is_spread`].
#[inline(always)]
pub(super) fn is_spread(port: Be16) -> bool {
    let (word, bit) = port_bit(port.host());
    maps::SPREAD_PORTS.get(word).is_some_and(|ports| ports & bit != 0)
}

/// See [`Env::core_of`].
#[inline(always)]
pub(super) fn core_of(worker: u32) -> Option<u32> {
    maps::SPREAD_CORES.get(worker).copied()
}

/// See [`Env::own_core`].
#[inline(always)]
pub(super) fn own_core() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { helpers::bpf_get_smp_processor_id() }
}

/// See [`Env::move_to`].
#[inline(always)]
pub(super) fn move_to(core: u32) -> bool {
    maps::SPREAD_CPUS.redirect(core, 0).is_ok()
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
pub(crate) fn ask(flow: &Flow, stage: Option<Stage>) -> ((u64, u64), (u64, u64), u64) {
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
