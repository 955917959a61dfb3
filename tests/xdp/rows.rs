//! The rows on the pure library and on the object, and both programs one after the other.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use lb_abi::{
    bounds::ANSWERS_PER_TICK,
    reason::{Fate, Reason},
};
use lb_ebpf::verdict::Verdict;
use lb_tests::{
    packet::Mac,
    xdp::{
        host, kernel, namespace,
        row::{Place, Program, Row},
        rows,
        world::{LB0, NEAR},
    },
};
use proptest::prelude::*;

/// Ticks of the host's runs: the slots' 24-bit times wrap between "ago" and now.
const NOW: u32 = 0x0200_0010;

fn all_of(rows: &[Row], run: impl FnMut(&Row) -> Result<(), String>) {
    let failures: Vec<_> = rows.iter().map(run).filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

fn all_now(rows: impl Fn(u32) -> Vec<Row>, run: impl FnMut(&Row) -> Result<(), String>) {
    let failures = namespace::each_fresh(rows, run);
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn host_rows() {
    all_of(&rows::all(NOW), |row| row.check(host::run(row)));
}

#[test]
fn errors_of_every_length() {
    all_of(&rows::too_big(NOW), |row| row.check(host::run(row)));
}

proptest! {
    /// However a row's frame is cut and bent: no panic, exactly one reason, and what is not ours passes
    /// untouched.
    #[test]
    fn bent_rows(
        row in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        bend in proptest::collection::vec((0usize..80, any::<u8>()), 0..4),
    ) {
        let rows = rows::all(NOW);
        let mut row = row.get(&rows).clone();
        row.frame.truncate(row.frame.len() - cut.index(row.frame.len() + 1) / 4);
        for (at, byte) in bend {
            if let Some(old) = row.frame.get_mut(at) {
                *old = byte;
            }
        }
        let result = host::run(&row);
        prop_assert_eq!(result.reasons.len(), 1);
        let is_moved = matches!(result.reasons[..], [Reason::Forwarded | Reason::Local]);
        prop_assert_eq!(result.moved.len(), usize::from(is_moved));
        let is_theirs = result.reasons.iter().all(|reason| reason.fate() == Fate::Pass);
        if row.program == Program::Ingress && result.verdict != Verdict::Drop && is_theirs {
            prop_assert_eq!(result.frame, row.frame);
        }
    }
}

#[test]
fn names_are_unique_and_every_reason_that_can_occur_does() {
    let rows = rows::all(NOW);
    for (at, row) in rows.iter().enumerate() {
        assert!(rows[..at].iter().all(|other| other.name != row.name), "twice: {}", row.name);
    }
    // Their features are not built yet; of cookies that come back the kernel judges.
    let later = [Reason::FlowTableFull, Reason::SynCookieBad];
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
    let has_two_cores = aya::util::nr_cpus().is_ok_and(|cores| cores > 1);
    all_now(rows::all, |row| match row.place {
        Place::HostOnly(_) => Ok(()),
        Place::Both if !has_two_cores && row.expected.verdict == Verdict::Moved => {
            eprintln!("skipped: {}: there is but one core", row.name);
            Ok(())
        }
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
    assert_eq!(cases.len(), 16, "both families inside and outside, by either interface, by IPIP and GUE");
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

/// However many packets do not fit: a core tells no more senders in a tick than its budget says.
#[test]
fn errors_are_rationed() {
    if let Some(why) = kernel::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut bench = kernel::Bench::new().expect("the object loads and attaches");
    let rows = rows::all(namespace::now_ticks());
    let row =
        rows.iter().find(|row| row.expected.reasons == [Reason::TooBig]).expect("a packet that is too big");
    bench.write(&row.world).expect("maps are written");
    let before = namespace::now_ticks();
    let (mut told, mut runs) = (0, 0);
    while runs < 4 * ANSWERS_PER_TICK {
        let (verdict, _) = bench.test_run(Program::Ingress, &row.frame).expect("lb_ingress runs");
        told += u32::from(verdict == Verdict::Transmit);
        assert!(matches!(verdict, Verdict::Transmit | Verdict::Drop), "{verdict:?}");
        runs += 1;
    }
    let ticks = namespace::now_ticks() - before + 1;
    // The test runs on one core after the other, at worst.
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    assert!(told >= ANSWERS_PER_TICK, "{told} of {runs} told");
    assert!(told <= ANSWERS_PER_TICK * ticks * cores, "{told} of {runs} told in {ticks} ticks");
}

/// A frame of several buffers is parsed, wrapped and counted like any other, over an interface whose MTU is large.
#[test]
fn jumbo_frames() {
    if let Some(why) = kernel::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut bench = kernel::Bench::new().expect("the object loads and attaches");
    let large = Command::new("ip").args(["link", "set", "lb0", "mtu", "9000"]).status();
    assert!(large.expect("ip runs").success(), "lb0 takes a large MTU with XDP on it");
    for row in rows::jumbo(namespace::now_ticks()) {
        row.check(bench.run(&row).expect("the row runs")).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// The answer of the routing table is kept for a moment, not for ever: nobody has to tell the packet path.
#[test]
fn a_neighbour_that_changes_is_seen_at_once() {
    /// 32 jiffies on the slowest kernel, of 100 Hz, and one that has begun.
    const SEEN_WITHIN: Duration = Duration::from_millis(330);
    if let Some(why) = kernel::unavailable() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut bench = kernel::Bench::new().expect("the object loads and attaches");
    let (world, packet, _) = rows::round_trips(namespace::now_ticks()).swap_remove(0);
    bench.write(&world).expect("maps are written");
    let destination = || {
        let (_, frame) = bench.test_run(Program::Ingress, &packet).expect("lb_ingress runs");
        Mac::try_from(&frame[..6]).expect("an Ethernet address")
    };
    let first = destination();
    assert_eq!(Some((first, LB0)), NEAR.neighbour, "the first round trip is by the near backend");
    let moved = Command::new("ip")
        .args(["neigh", "replace", NEAR.address, "lladdr", "02:00:00:00:00:ee", "dev", "lb0"])
        .args(["nud", "permanent"])
        .status();
    assert!(moved.expect("ip runs").success());
    let moved_at = Instant::now();
    let second = loop {
        let asked_after = moved_at.elapsed();
        let now = destination();
        if now != first {
            break now;
        }
        assert!(asked_after < SEEN_WITHIN, "an old answer outlived its time");
    };
    assert_eq!(second, [2, 0, 0, 0, 0, 0xee]);
}
