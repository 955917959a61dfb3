//! How fast one source may open flows: looked at only while this core sees a flood of SYNs.
//!
//! Only SYNs open flows that can be seen: nothing is known of UDP's, and every datagram would have to be looked at.
//! A source is an IPv4 address, or the first half of an IPv6 one, of which a host has all the rest.

use lb_abi::limit::{Allowance, Limits};

use crate::{
    address::Address,
    env::{AllowanceCell as _, Env},
    numbers::Family,
};

/// Whether the source of a SYN opened more flows than it may. Counts the SYN.
#[inline(always)]
pub fn exceeds<E: Env>(env: &E, source: Address) -> bool {
    let Some(limits) = env.limits() else { return false };
    let now = env.now_ticks();
    let meter = env.meter().counted(now);
    env.keep_meter(meter);
    meter.is_armed(limits) && !take(env, limits, source, now)
}

/// Whether there was a flow left in the source's allowance.
#[inline(always)]
fn take<E: Env>(env: &E, limits: &Limits, source: Address, now: u32) -> bool {
    let source = match source.family() {
        Family::V4 => source.bytes(),
        Family::V6 => source.network().bytes(),
    };
    match env.allowance(&source) {
        Some(cell) => {
            let (allowance, is_allowed) = cell.load().take(limits, now);
            cell.store(allowance);
            is_allowed
        }
        None => {
            let (allowance, is_allowed) = Allowance::full(limits, now).take(limits, now);
            env.keep_allowance(&source, allowance);
            is_allowed
        }
    }
}
