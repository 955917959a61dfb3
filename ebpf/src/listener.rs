//! Packets that no VIP wants: the kernel has them, and a listener of this box may want them.

use lb_abi::{
    flow::FlowKey,
    meta::{FLAG_COOKIES, FLAG_SPREAD, Meta},
    reason::Reason,
};

use crate::{
    env::Env,
    parse::TcpFlags,
    spread,
    verdict::{Outcome, Verdict},
};

/// What becomes of one; `flags` are those of a TCP packet. What is called counts it.
#[inline(always)]
pub fn reach<E: Env>(env: &E, meta: &Meta, flow: &FlowKey, flags: Option<TcpFlags>) -> Outcome {
    let opens = meta.flags & FLAG_COOKIES != 0 && flags.is_some_and(TcpFlags::opens);
    if opens && env.is_flooded() {
        return Outcome { reason: Reason::NotOurs, verdict: Verdict::Cookie };
    }
    deliver(env, meta, flow)
}

/// Leaves one to the kernel, on the core that is to have it.
#[inline(always)]
pub fn deliver<E: Env>(env: &E, meta: &Meta, flow: &FlowKey) -> Outcome {
    if meta.flags & FLAG_SPREAD != 0 && spread::moves(env, flow) {
        return Outcome { reason: Reason::Spread, verdict: Verdict::Moved };
    }
    Outcome { reason: Reason::NotOurs, verdict: Verdict::Pass }
}
