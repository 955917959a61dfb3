//! The kernel behind the library's traits. Raw pointers are here and below alone.

pub(crate) mod apart;
mod cells;
mod cookie;
mod flows;
pub(crate) mod frame;
pub(crate) mod kernel;
pub(crate) mod lookup;
pub(crate) mod nat;
pub(crate) mod probe;
pub(crate) mod steer;

use aya_ebpf::{
    bindings::xdp_action, helpers::generated as helpers, maps::PerCpuArray, programs::XdpContext,
};
use lb_abi::{
    counter::Traffic,
    interface,
    names::{CALL_COOKIE, CALL_NAT},
    reason::Reason,
};
use lb_ebpf::verdict::Verdict;

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
        Verdict::Moved => xdp_action::XDP_REDIRECT,
        Verdict::Translate => call(ctx, CALL_NAT, Reason::Abi),
        Verdict::Cookie => call(ctx, CALL_COOKIE, Reason::NotOurs),
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Transmit => xdp_action::XDP_TX,
        // SAFETY: a helper without pointers. It answers XDP_REDIRECT, or XDP_ABORTED for flags, which are 0.
        Verdict::Redirect { interface } => unsafe { helpers::bpf_redirect(interface, 0) as u32 },
    }
}

/// Calls a program, which does not return. Where it is missing, which the loader does not let happen, the kernel has the
/// packet, counted under `missing`.
#[inline(always)]
fn call(ctx: &XdpContext, program: u32, missing: Reason) -> u32 {
    // SAFETY: the context is the kernel's, and the called programs are of the same kind.
    unsafe { maps::PROGRAMS.tail_call(ctx, program) };
    add_one(&maps::REASONS, missing as u32);
    xdp_action::XDP_PASS
}

#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

#[inline(always)]
fn add_one(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: this core's own counter; XDP programs are not interrupted by one another on a core.
        unsafe { *counter += 1 };
    }
}

/// Counts a dropped packet for the interface it came in by.
#[inline(always)]
fn count_drop(ingress: u32, reason: Reason) {
    let number = match maps::INTERFACES.get(interface::place(ingress)) {
        // The bound is for the verifier: the map is ours, and holds no greater one.
        Some(entry) if entry.index == ingress => entry.number & (interface::NUMBERS_MAX - 1),
        _ => interface::OTHERS,
    };
    add_one(&maps::DROPS, interface::counter(number, reason as u32));
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
