//! A witness between the packet path and its surroundings, which writes down what passes.
//!
//! It sees every question that the path asks and every answer it gets, so the path itself holds no line for it.
//! Kept [`Live`] it changes nothing of what happens; kept [`Dry`] the packet leaves no trace but the one in the
//! notes: no counter, no flow record, no next hop, and the routing table is asked anew.

mod cells;
mod env;
mod walk;

use core::marker::PhantomData;

use lb_abi::{
    flow::FlowRecord,
    hop::HopEntry,
    reason::Reason,
    slot::Slot,
    trace::{
        STEP_RECORD_LEFT, STEP_VIP_ASKED, Trace, VERDICT_COOKIE, VERDICT_DROP, VERDICT_MOVED, VERDICT_PASS,
        VERDICT_REDIRECT, VERDICT_TRANSLATE, VERDICT_TRANSMIT,
    },
    vip::VipKey,
};

use crate::{
    address::Address,
    directory::Wanted,
    env::Env,
    flow::Flow,
    hop, icmp, limit, listener,
    packet::Packet,
    route::{Route, Unroutable},
    select::{self, Pick, Stage},
    verdict::{Outcome, Verdict},
};

/// Where notes are kept, and what is called apart from the path before the same witness: in the kernel functions of
/// their own, as for [`crate::walk::Walk::locate`].
pub trait Notes {
    /// Changes them. `edit` never calls this.
    fn change<R>(&self, edit: impl FnOnce(&mut Trace) -> R) -> R;
    /// As [`crate::walk::Walk::pick_moving`].
    #[inline(always)]
    fn pick_moving<E: Env>(&self, witness: &E, flow: &Flow, idle: u32, stage: Stage, slot: Slot) -> Pick {
        select::pick_moving(witness, &flow.key(), flow.tag(&witness.tag_keys()), idle, stage, slot)
    }
    /// As [`crate::walk::Walk::find_hop`].
    #[inline(always)]
    fn find_hop<E: Env>(
        &self,
        witness: &E,
        backend: u16,
        wanted: HopEntry,
        route: &Route,
    ) -> Result<(), Unroutable> {
        hop::find(witness, backend, wanted, route)
    }
    /// As [`crate::walk::Walk::exceeds`].
    #[inline(always)]
    fn exceeds<E: Env>(&self, witness: &E, source: Address) -> bool {
        limit::exceeds(witness, source)
    }
    /// As [`crate::walk::Walk::tell_too_big`].
    #[inline(always)]
    fn tell_too_big<P: Packet, E: Env>(&self, witness: &E, packet: &mut P, fits: u16) -> Result<(), Reason> {
        icmp::too_big(packet, witness, fits)
    }
    /// As [`crate::walk::Walk::listener`].
    #[inline(always)]
    fn listener<E: Env>(&self, witness: &E, flow: &Flow, stage: Option<Stage>) -> Outcome {
        listener::arrive(witness, flow, stage)
    }
}

/// Whether what happens before a witness counts.
pub trait Kind {
    /// It does: counters, records and next hops are written.
    const LIVE: bool;
}

/// It counts.
#[derive(Clone, Copy, Debug)]
pub struct Live;

/// It is only asked for.
#[derive(Clone, Copy, Debug)]
pub struct Dry;

impl Kind for Live {
    const LIVE: bool = true;
}

impl Kind for Dry {
    const LIVE: bool = false;
}

/// Writes down how it ended, for a packet that came in by `ingress`.
#[inline(always)]
pub const fn end(trace: &mut Trace, verdict: Verdict, ingress: u32) {
    (trace.verdict, trace.interface) = match verdict {
        Verdict::Pass => (VERDICT_PASS, 0),
        Verdict::Drop => (VERDICT_DROP, 0),
        Verdict::Transmit => (VERDICT_TRANSMIT, ingress),
        Verdict::Redirect { interface } => (VERDICT_REDIRECT, interface),
        Verdict::Moved => (VERDICT_MOVED, 0),
        Verdict::Translate => {
            trace.reason = Reason::NotOurs as u32;
            (VERDICT_TRANSLATE, 0)
        }
        Verdict::Cookie => {
            trace.reason = Reason::NotOurs as u32;
            (VERDICT_COOKIE, 0)
        }
    };
}

/// Stands before an [`Env`] and writes down what passes.
#[derive(Debug)]
pub struct Witness<'a, E, N, K> {
    env: &'a E,
    notes: &'a N,
    kind: PhantomData<K>,
}

impl<'a, E: Env, N: Notes, K: Kind> Witness<'a, E, N, K> {
    /// Before `env`, with empty `notes`.
    #[inline(always)]
    pub const fn new(env: &'a E, notes: &'a N) -> Self {
        Self { env, notes, kind: PhantomData }
    }

    #[inline(always)]
    fn asked_vip(&self, wanted: &Wanted) {
        let Wanted { address, port, protocol, host_bits } = *wanted;
        self.notes.change(|trace| {
            trace.steps |= STEP_VIP_ASKED;
            trace.vip_key = VipKey { address: address.bytes(), port, protocol, host_bits };
        });
    }

    #[inline(always)]
    fn left(&self, record: FlowRecord) {
        self.notes.change(|trace| {
            trace.steps |= STEP_RECORD_LEFT;
            trace.record_left = record;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_where_the_packet_leaves() {
        let ended = |verdict| {
            let mut trace = Trace::default();
            end(&mut trace, verdict, 7);
            (trace.verdict, trace.interface)
        };
        assert_eq!(ended(Verdict::Transmit), (VERDICT_TRANSMIT, 7));
        assert_eq!(ended(Verdict::Redirect { interface: 9 }), (VERDICT_REDIRECT, 9));
        assert_eq!(ended(Verdict::Pass), (VERDICT_PASS, 0));
        assert_eq!(ended(Verdict::Drop), (VERDICT_DROP, 0));
        assert_eq!(ended(Verdict::Moved), (VERDICT_MOVED, 0));
        assert_eq!(ended(Verdict::Translate), (VERDICT_TRANSLATE, 0));
        assert_eq!(ended(Verdict::Cookie), (VERDICT_COOKIE, 0));
    }
}
