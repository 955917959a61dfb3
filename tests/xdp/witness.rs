//! Every row before a witness: a live one changes nothing, a dry one leaves nothing behind, and both tell the truth.

use lb_abi::{
    bounds::SYNS_PER_TICK,
    counter::FlowEvent,
    meta::{FLAG_COOKIES, FLAG_NAT},
    quic::QuicEvent,
    reason::Reason,
    trace::{
        STEP_BACKEND, STEP_COUNTED, STEP_LIMIT_ASKED, STEP_NEW_FLOW, STEP_QUIC, STEP_RECORD_FOUND,
        STEP_RECORD_LEFT, STEP_ROUTE_ASKED, STEP_ROUTE_FOUND, STEP_SLOT, STEP_SOURCE_ASKED, STEP_SPREAD,
        STEP_TRAFFIC, STEP_VIP_ASKED, STEP_VIP_FOUND, Trace, VERDICT_COOKIE, VERDICT_DROP, VERDICT_MOVED,
        VERDICT_PASS, VERDICT_REDIRECT, VERDICT_TRANSLATE, VERDICT_TRANSMIT,
    },
};
use lb_ebpf::{
    verdict::Verdict,
    witness::{Dry, Live},
};
use lb_tests::xdp::{
    host, kernel, namespace,
    row::{Place, Program, Row},
    rows,
    world::{LB0, NOBODY},
};

/// As in the rows' own test.
const NOW: u32 = 0x0200_0010;

fn of_ingress(now: u32) -> Vec<Row> {
    rows::all(now).into_iter().filter(|row| row.program == Program::Ingress).collect()
}

/// Whether a dry run cannot know: it does not try whether the flow table has room, and takes no core's answers for
/// spent.
fn depends_on_room(row: &Row) -> bool {
    row.expected.events.contains(&FlowEvent::InsertRefused) || row.world.answers_left == 0
}

/// The notes say what the row says.
fn check(row: &Row, trace: &Trace) -> Result<(), String> {
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

/// What is left in allowances before a row runs.
fn allowances(row: &Row) -> impl Iterator<Item = ([u8; 16], u32)> {
    row.world.allowances.iter().map(|(source, allowance)| (*source, allowance.level))
}

fn all_of(rows: &[Row], run: impl FnMut(&Row) -> Result<(), String>) {
    let failures: Vec<_> = rows.iter().map(run).filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

#[test]
fn a_live_witness_changes_nothing() {
    all_of(&of_ingress(NOW), |row| {
        let (result, trace) = host::witnessed::<Live>(row);
        row.check(result)?;
        check(row, &trace)
    });
}

#[test]
fn a_dry_witness_leaves_nothing_behind() {
    all_of(&of_ingress(NOW), |row| {
        let (result, trace) = host::witnessed::<Dry>(row);
        let untouched = result.reasons.is_empty()
            && result.events.is_empty()
            && result.quic.is_empty()
            && allowances(row).eq(result.allowances.iter().copied())
            && result.moved.is_empty()
            && result.records.len() == row.world.flows.len()
            && result.records.iter().all(|left| {
                row.world.flows.iter().any(|(key, record)| {
                    *key == left.key && (record.backend, record.state) == (left.backend, left.state)
                })
            });
        if !untouched {
            return Err(format!("{}: {result:?}", row.name));
        }
        if depends_on_room(row) { Ok(()) } else { check(row, &trace) }
    });
}

/// The rows reach every kind of step, so that the checks above mean something.
#[test]
fn rows_reach_every_step() {
    let traces: Vec<Trace> = of_ingress(NOW).iter().map(|row| host::witnessed::<Dry>(row).1).collect();
    let all = traces.iter().fold(0, |all, trace| all | trace.steps);
    let choices = STEP_QUIC | STEP_SOURCE_ASKED | STEP_LIMIT_ASKED;
    assert_eq!(all, ((STEP_SPREAD << 1) - 1) | choices, "{all:#x}");
    for (step, without) in [
        (STEP_VIP_ASKED, STEP_VIP_FOUND),
        (STEP_ROUTE_ASKED, STEP_ROUTE_FOUND),
        (STEP_RECORD_LEFT, STEP_RECORD_FOUND),
    ] {
        assert!(traces.iter().any(|trace| trace.steps & (step | without) == step), "{step:#x}");
    }
    assert!(traces.iter().any(|trace| trace.backend == u32::from(NOBODY)));
}

/// What control asks the loaded program is what `lb_ingress` does with the same packet, and moves nothing.
#[test]
fn lb_why_tells_what_lb_ingress_does() {
    if let Some(why) = kernel::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut bench = kernel::Bench::new().expect("the object loads and attaches");
    let mut asked = 0;
    all_of(&of_ingress(namespace::now_ticks()), |row| {
        if matches!(row.place, Place::HostOnly(_)) {
            return Ok(());
        }
        let (frame, trace) = bench.why(row).map_err(|error| format!("{}: {error:#}", row.name))?;
        asked += 1;
        if depends_on_room(row) {
            return Ok(());
        }
        // What is translated is `lb_nat`'s to rewrite, and `lb_cookie`'s what goes on to that.
        let is_others = [VERDICT_TRANSLATE, VERDICT_COOKIE].contains(&trace.verdict);
        let left = if is_others { &row.frame } else { &row.expected.frame };
        if row.expected.verdict != Verdict::Drop && frame != *left {
            return Err(format!("{}: another frame", row.name));
        }
        check(row, &trace)
    });
    assert!(asked > 50, "only {asked} rows");
}

/// While a capture runs, every row comes out as it does otherwise, and stands in the ring as it came in.
#[test]
fn a_captured_packet_fares_as_any_other() {
    if let Some(why) = kernel::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut bench = kernel::Bench::new().expect("the object loads and attaches");
    bench.capture().expect("a capture begins");
    all_of(&of_ingress(namespace::now_ticks()), |row| {
        if matches!(row.place, Place::HostOnly(_)) {
            return Ok(());
        }
        let failed = |error| format!("{}: {error:#}", row.name);
        row.check(bench.run(row).map_err(failed)?)?;
        let captured = bench.captured().map_err(failed)?;
        let [(record, frame)] = &captured[..] else {
            return Err(format!("{}: {} captured", row.name, captured.len()));
        };
        if record.length as usize != row.frame.len() || *frame != row.frame[..frame.len()] {
            return Err(format!("{}: captured {frame:02x?}", row.name));
        }
        if record.ingress != LB0 || frame.len() < 14.min(row.frame.len()) {
            return Err(format!("{}: {record:?}", row.name));
        }
        check(row, &record.trace)
    });
}
