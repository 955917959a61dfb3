//! Packets that no VIP wants: the kernel has them, and a listener of this box may want them.

use lb_abi::{
    meta::{FLAG_COOKIES, FLAG_SPREAD, Meta},
    reason::Reason,
};

use crate::{
    env::Env,
    flow::Flow,
    numbers::protocol,
    select::Stage,
    spread,
    verdict::{Outcome, Verdict},
};

/// Whether a packet of a flow is [`arrive`]'s to decide about; an impossible one has no stage.
#[inline(always)]
pub const fn is_asked(meta: &Meta, flow: &Flow, stage: Option<Stage>) -> bool {
    let is_on = meta.flags & (FLAG_COOKIES | FLAG_SPREAD) != 0;
    // An ICMP error is about the flow, and none of its packets.
    is_on && flow.protocol == protocol::TCP && !matches!(stage, Some(Stage::Reported))
}

/// What becomes of a TCP packet, where listeners take cookies or their packets are spread.
#[inline(always)]
pub fn arrive<E: Env>(env: &E, flow: &Flow, stage: Option<Stage>) -> Outcome {
    let flags = env.meta().map_or(0, |meta| meta.flags);
    if matches!(stage, Some(Stage::Opening)) && flags & FLAG_COOKIES != 0 && env.count_syn() {
        return Outcome { reason: Reason::NotOurs, verdict: Verdict::Cookie };
    }
    deliver(env, flags, flow)
}

/// Leaves one to the kernel, on the core that is to have it; `flags` are those of `META`.
#[inline(always)]
pub fn deliver<E: Env>(env: &E, flags: u32, flow: &Flow) -> Outcome {
    if flags & FLAG_SPREAD != 0 && spread::moves(env, flow) {
        return Outcome { reason: Reason::Spread, verdict: Verdict::Moved };
    }
    Outcome { reason: Reason::NotOurs, verdict: Verdict::Pass }
}
