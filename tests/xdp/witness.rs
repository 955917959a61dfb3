//! Every row before a witness: a live one changes nothing, a dry one leaves nothing behind, and both tell the truth.

use lb_abi::trace::{
    STEP_LIMIT_ASKED, STEP_QUIC, STEP_RECORD_FOUND, STEP_RECORD_LEFT, STEP_ROUTE_ASKED, STEP_ROUTE_FOUND,
    STEP_SOURCE_ASKED, STEP_SPREAD, STEP_VIP_ASKED, STEP_VIP_FOUND, Trace, VERDICT_COOKIE, VERDICT_TRANSLATE,
};
use lb_ebpf::{
    verdict::Verdict,
    witness::{Dry, Live},
};
use lb_tests::xdp::{
    host, kernel, namespace,
    row::{Place, Program, Row},
    rows,
    told::{check, depends_on_room},
    world::{LB0, NOBODY},
};

/// As in the rows' own test.
const NOW: u32 = 0x0200_0010;

fn of_ingress(now: u32) -> Vec<Row> {
    rows::all(now).into_iter().filter(|row| row.program == Program::Ingress).collect()
}

/// As many of them as `LB_WITNESS_STEP` says, every one without it: a guest that is interpreted takes seconds for a few.
fn some_of_ingress(now: u32) -> Vec<Row> {
    let step = std::env::var("LB_WITNESS_STEP").ok().and_then(|step| step.parse().ok()).unwrap_or(1);
    of_ingress(now).into_iter().step_by(step).collect()
}

/// What is left in allowances before a row runs.
fn allowances(row: &Row) -> impl Iterator<Item = ([u8; 16], u32)> {
    row.world.allowances.iter().map(|(source, allowance)| (*source, allowance.level))
}

fn all_of(rows: &[Row], run: impl FnMut(&Row) -> Result<(), String>) {
    let failures: Vec<_> = rows.iter().map(run).filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

fn all_now(rows: impl Fn(u32) -> Vec<Row>, run: impl FnMut(&Row) -> Result<(), String>) {
    let failures = namespace::each_fresh(rows, run);
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
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
    all_now(some_of_ingress, |row| {
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
    all_now(some_of_ingress, |row| {
        if matches!(row.place, Place::HostOnly(_)) {
            return Ok(());
        }
        let failed = |error| format!("{}: {error:#}", row.name);
        row.check(bench.run(row).map_err(failed)?)?;
        let mut captured = bench.captured().map_err(failed)?;
        if captured.len() > 1 {
            // The kernel at the other end has a word to say now and then.
            captured.retain(|(record, frame)| {
                record.length as usize == row.frame.len() && row.frame.starts_with(frame)
            });
        }
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
