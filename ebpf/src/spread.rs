//! The packet's core is the worker's core, also where an interface has fewer receive queues than there are workers: XDP
//! gives the TCP packets of listeners to the core whose worker will own their flow, by a hash of the flow. That core's
//! stack then delivers them, and `lb_steer` by core finds its worker.
//!
//! What no listener's port is addressed to stays where it came in: answers of backends among it, whose worker nobody
//! can tell from their headers.

use lb_abi::hash;

use crate::{env::Env, flow::Flow, numbers::protocol};

/// Whether another core was told to have a packet of the flow; else it is where it should be.
#[inline(always)]
pub fn moves<E: Env>(env: &E, flow: &Flow) -> bool {
    core(env, flow).is_some_and(|core| core != env.own_core() && env.move_to(core))
}

/// The core of the worker that owns a flow, or will.
#[inline(always)]
fn core<E: Env>(env: &E, flow: &Flow) -> Option<u32> {
    if flow.protocol != protocol::TCP || !env.is_spread(flow.ports.destination) {
        return None;
    }
    let spread = env.spread()?;
    if spread.workers == 0 {
        return None;
    }
    env.core_of(hash::slot(flow.hash(spread.key), spread.workers))
}
