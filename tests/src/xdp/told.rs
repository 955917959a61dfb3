//! What a witness notes of a packet, against what came of it.

use lb_abi::{
    bounds::SYNS_PER_TICK,
    counter::FlowEvent,
    meta::{FLAG_COOKIES, FLAG_NAT},
    quic::QuicEvent,
    reason::Reason,
    trace::{
        STEP_BACKEND, STEP_COUNTED, STEP_NEW_FLOW, STEP_QUIC, STEP_RECORD_LEFT, STEP_SLOT, STEP_SPREAD,
        STEP_TRAFFIC, STEP_VIP_FOUND, Trace, VERDICT_COOKIE, VERDICT_DROP, VERDICT_MOVED, VERDICT_PASS,
        VERDICT_REDIRECT, VERDICT_TRANSLATE, VERDICT_TRANSMIT,
    },
};
use lb_ebpf::verdict::Verdict;

use crate::xdp::{row::Row, world::LB0};

/// Whether a dry run cannot know: it does not try whether the flow table has room, and takes no core's answers for
/// spent.
pub fn depends_on_room(row: &Row) -> bool {
    row.expected.events.contains(&FlowEvent::InsertRefused) || row.world.answers_left == 0
}

/// Whether the notes say what the row says.
///
/// # Errors
/// Both, for a person.
pub fn check(row: &Row, trace: &Trace) -> Result<(), String> {
    let expected = &row.expected;
    let has = |step| trace.steps & step != 0;
    if trace.verdict == VERDICT_COOKIE {
        // The same of `lb_cookie`.
        let is_true = row.world.meta.flags & FLAG_COOKIES != 0
            && row.world.syns >= SYNS_PER_TICK
            && !has(STEP_COUNTED | STEP_TRAFFIC);
        return if is_true { Ok(()) } else { Err(format!("{}: {trace:?}", row.name)) };
    }
    if trace.verdict == VERDICT_TRANSLATE {
        // What becomes of it is `lb_nat`'s to say and to count.
        let is_true = row.world.meta.flags & FLAG_NAT != 0 && !has(STEP_COUNTED | STEP_TRAFFIC);
        return if is_true { Ok(()) } else { Err(format!("{}: {trace:?}", row.name)) };
    }
    let verdict = match expected.verdict {
        Verdict::Pass => (VERDICT_PASS, 0),
        Verdict::Drop => (VERDICT_DROP, 0),
        Verdict::Transmit => (VERDICT_TRANSMIT, LB0),
        Verdict::Redirect { interface } => (VERDICT_REDIRECT, interface),
        Verdict::Moved => (VERDICT_MOVED, 0),
        Verdict::Translate => (VERDICT_TRANSLATE, 0),
        Verdict::Cookie => (VERDICT_COOKIE, 0),
    };
    let events: Vec<FlowEvent> =
        FlowEvent::ALL.into_iter().filter(|event| trace.events & (1 << *event as u32) != 0).collect();
    let moved = expected.moved.first();
    let quic: Vec<QuicEvent> =
        has(STEP_QUIC).then(|| QuicEvent::of_number(trace.quic_event)).into_iter().collect();
    let is_led_by_id = quic == [QuicEvent::ById];
    let is_true = has(STEP_COUNTED)
        && Reason::of_number(trace.reason).is_some_and(|reason| expected.reasons == [reason])
        && (trace.verdict, trace.interface) == verdict
        && events == expected.events
        && quic == expected.quic
        && (expected.verdict != Verdict::Moved || has(STEP_SPREAD) && trace.core == 1)
        && has(STEP_TRAFFIC) == moved.is_some()
        && moved.is_none_or(|moved| {
            has(STEP_VIP_FOUND)
                && has(STEP_SLOT) != is_led_by_id
                && has(STEP_BACKEND)
                && u32::from(moved.backend) == trace.backend
                && moved.vip == trace.vip.vip
                && has(STEP_NEW_FLOW) == (moved.new_flows == 1)
        })
        && (!has(STEP_RECORD_LEFT)
            || expected.records.iter().any(|left| {
                (left.backend, left.epoch, left.state)
                    == (trace.record_left.backend, trace.record_left.epoch, trace.record_left.state)
            }));
    match is_true {
        true => Ok(()),
        false => Err(format!("{}: expected {expected:?}, noted {trace:?}", row.name)),
    }
}
