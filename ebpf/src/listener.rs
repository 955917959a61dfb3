//! Packets that no VIP wants: the kernel has them, and a listener of this box may want them.

use lb_abi::{
    meta::{FLAG_COOKIES, Meta},
    reason::Reason,
};

use crate::{
    env::Env,
    parse::TcpFlags,
    verdict::{Outcome, Verdict},
};

/// What becomes of one; `flags` are those of a TCP packet. What is called counts it.
#[inline(always)]
pub fn reach<E: Env>(env: &E, meta: &Meta, flags: Option<TcpFlags>) -> Outcome {
    let opens = meta.flags & FLAG_COOKIES != 0 && flags.is_some_and(TcpFlags::opens);
    let verdict = if opens && env.is_flooded() { Verdict::Cookie } else { Verdict::Pass };
    Outcome { reason: Reason::NotOurs, verdict }
}
