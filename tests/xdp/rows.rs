//! The rows on the pure library and on the object, and both programs one after the other.

use lb_abi::reason::{Fate, Reason};
use lb_ebpf::verdict::Verdict;
use lb_tests::xdp::{
    host, kernel, namespace,
    row::{Place, Program, Row},
    rows,
};

/// Ticks of the host's runs: the slots' 24-bit times wrap between "ago" and now.
const NOW: u32 = 0x0200_0010;

fn all_of(rows: &[Row], run: impl FnMut(&Row) -> Result<(), String>) {
    let failures: Vec<_> = rows.iter().map(run).filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

#[test]
fn host_rows() {
    all_of(&rows::all(NOW), |row| row.check(host::run(row)));
}

#[test]
fn names_are_unique_and_every_reason_that_can_occur_does() {
    let rows = rows::all(NOW);
    for (at, row) in rows.iter().enumerate() {
        assert!(rows[..at].iter().all(|other| other.name != row.name), "twice: {}", row.name);
    }
    // Their features are not built yet.
    let later = [Reason::RateLimited, Reason::NatPortsExhausted, Reason::FlowTableFull, Reason::SynCookieBad];
    for reason in Reason::ALL {
        let occurs = rows.iter().any(|row| row.expected.reasons.contains(&reason));
        assert_eq!(occurs, !later.contains(&reason), "{}", reason.name());
    }
    for row in &rows {
        let dropped = row.expected.reasons.iter().any(|reason| reason.fate() == Fate::Drop);
        assert_eq!(row.expected.verdict == Verdict::Drop, dropped, "{}", row.name);
    }
}

#[test]
fn kernel_rows() {
    if let Some(why) = kernel::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut bench = kernel::Bench::new().expect("the object loads and attaches");
    all_of(&rows::all(namespace::now_ticks()), |row| match row.place {
        Place::HostOnly(_) => Ok(()),
        Place::Both => row.check(bench.run(row).map_err(|error| format!("{}: {error:#}", row.name))?),
    });
}

/// What `lb_ingress` puts on, `lb_decap` takes off: the packet is as it was but one hop older.
#[test]
fn decap_undoes_encap() {
    if let Some(why) = kernel::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut bench = kernel::Bench::new().expect("the object loads and attaches");
    let now = namespace::now_ticks();
    let cases = rows::round_trips(now);
    assert_eq!(cases.len(), 8, "both families inside and outside, by either interface");
    for (world, packet, back) in cases {
        bench.write(&world).expect("maps are written");
        let (verdict, encapsulated) = bench.test_run(Program::Ingress, &packet).expect("lb_ingress runs");
        assert!(matches!(verdict, Verdict::Transmit | Verdict::Redirect { .. }), "{verdict:?}");
        let (verdict, frame) = bench.test_run(Program::Decap, &encapsulated).expect("lb_decap runs");
        assert_eq!(verdict, Verdict::Pass);
        assert_eq!(frame, back);
        bench.clear().expect("maps are emptied");
    }
}
