//! `l4-table`: what Maglev's table costs to build, and what moves in it that need not.
//!
//! lb builds a table from its predecessor. Beside it: the same without one, which is Maglev as published, and the
//! crate `maglev` as somebody else's reading of the paper, over the same number of slots. One backend of n equal
//! ones leaves; what belonged to it has to move, all else is counted as moved beyond need. The crate shows no
//! slots, so there the share of 65 537 keys counts.
//!
//! What a change costs as a whole is measured on maps of the kernel: config in, new table, every slot compared, changed
//! ones stored. Grace periods and the moving of flows come after that and take as long as they take.

use std::{hint::black_box, net::Ipv4Addr, sync::Arc, time::Duration, time::Instant};

use anyhow::{Context as _, Result, ensure};
use lb::{
    balance::maglev::{Member, Table},
    config::{Forward, HashBy, Transport, VipPort},
    model::{BackendId, Generation},
    steering::{Desired, DesiredBackend, DesiredPool, DesiredVip, Options, Plane},
};
use lb_abi::{
    bounds::{BACKENDS_MAX, TABLE_LEN},
    hash::sip13,
};
use maglev::{ConsistentHasher as _, Maglev};

use super::Scenario;
use crate::{
    context::Context,
    interrupt::check_interrupted,
    sample::{Metric, Sample},
};

/// The scenario.
pub(crate) struct L4Table;

const BUILD: Metric = Metric::cost("build", "ms").over("backends");
const REBUILD: Metric = Metric::cost("rebuild_without_one", "ms").over("backends");
const APPLY: Metric = Metric::cost("maps_without_one", "ms").over("backends");
const FAIL: Metric = Metric::cost("maps_one_down", "ms").over("backends");
const BEYOND_NEED: Metric = Metric::cost("moved_beyond_need", "%").over("backends");

/// 5000 is more than the packet path has ids for.
const COUNTS: [u16; 4] = [10, 100, 1000, BACKENDS_MAX as u16 - 1];
/// The crate writes out every backend's permutation: half a mebibyte each.
const CRATE_COUNT_MAX: u16 = 100;

const LB: &str = "lb";
const PLAIN: &str = "lb-plain-maglev";
const CRATE: &str = "maglev-crate";

impl Scenario for L4Table {
    fn name(&self) -> &'static str {
        "l4-table"
    }

    fn description(&self) -> &'static str {
        "Maglev table: time to build, and slots moved beyond need when a backend leaves"
    }

    fn run(&self, context: &mut Context<'_>) -> Result<()> {
        context.samples.note(format!(
            "{CRATE}: up to {CRATE_COUNT_MAX} backends, since it writes out every permutation ({} KiB each)",
            (TABLE_LEN as usize * size_of::<usize>()) >> 10
        ));
        context.samples.note(format!("{} backends stand for 5000: there are no more ids", COUNTS[3]));
        context.rounds(&[LB, PLAIN, CRATE], |subject| {
            let mut sample = Sample::new();
            for count in COUNTS {
                check_interrupted()?;
                sample = match *subject {
                    LB => sample.and(ours(count, true)?).and(applied(count)?),
                    PLAIN => sample.and(ours(count, false)?),
                    _ if count <= CRATE_COUNT_MAX => sample.and(theirs(count)?),
                    _ => sample,
                };
            }
            Ok(sample)
        })
    }
}

fn members(count: u16) -> Vec<Member> {
    let identity = |id: u16| sip13([7, 7], [u64::from(id)]);
    (1..=count).map(|id| Member { id: BackendId(id), identity: identity(id), weight: 1 }).collect()
}

fn ours(count: u16, from_predecessor: bool) -> Result<Sample> {
    const KEY: [u64; 2] = [1, 2];
    let members = members(count);
    let (old, build_ms) = timed(|| Table::build(TABLE_LEN, KEY, &members, None));
    let previous = from_predecessor.then_some(&old);
    let (new, rebuild_ms) = timed(|| Table::build(TABLE_LEN, KEY, &members[1..], previous));
    let gone = members[0].id;
    let pairs: Vec<_> = old.owners().zip(new.owners()).collect();
    ensure!(pairs.iter().all(|(_, new)| *new != gone && new.0 != 0), "a slot without a member");
    let beyond = pairs.iter().filter(|(old, new)| old != new && *old != gone).count();
    Ok(sample(count, build_ms, rebuild_ms, beyond))
}

/// The same change as the daemon makes it, and a death, on maps of the kernel.
fn applied(count: u16) -> Result<Sample> {
    let mut plane = Plane::open(Options::default()).context("maps of the kernel")?;
    let (all, without) = (desired(1, 1..=count), desired(2, 2..=count));
    plane.sync(&all, 1000)?;
    let (result, apply_ms) = timed(|| plane.sync(&without, 2000));
    result?;
    let moved = plane.status().pools["p"].slots.open;
    ensure!(moved >= TABLE_LEN as usize / usize::from(count), "{moved} slots moved");
    let (result, fail_ms) = timed(|| plane.set_down(&[BackendId(2)].into(), 3000));
    result?;
    ensure!(plane.down().contains(&BackendId(2)), "nobody is down");
    let at = f64::from(count);
    Ok(Sample::new().with_at(APPLY, at, apply_ms).with_at(FAIL, at, fail_ms))
}

fn desired(generation: u64, ids: impl Iterator<Item = u16>) -> Desired {
    let backend = |id: u16| {
        let address = Ipv4Addr::from_bits(0x0a00_0000 | u32::from(id)).into();
        DesiredBackend { id: BackendId(id), address, port: None, weight: 1 }
    };
    let vip = DesiredVip {
        name: "v".into(),
        addresses: vec![Ipv4Addr::new(192, 0, 2, 1).into()],
        prefixes: vec![],
        ports: vec![VipPort::one(80, Transport::Tcp)],
        forward: Forward::Ipip,
        pool: "p".into(),
        nat_source: vec![],
        flows_none: false,
        hash: HashBy::Flow,
        flow_idle: Duration::from_secs(900),
        hash_key: [1, 2],
    };
    let pool = DesiredPool {
        name: Arc::from("p"),
        table_key: [1, 2],
        backends: ids.map(backend).collect(),
        lineage: None,
    };
    Desired { generation: Generation(generation), vips: vec![vip], pools: vec![pool], ..Desired::default() }
}

fn theirs(count: u16) -> Result<Sample> {
    let slots = TABLE_LEN as usize;
    let (old, build_ms) = timed(|| Maglev::with_capacity(1..=count, slots));
    let (new, rebuild_ms) = timed(|| Maglev::with_capacity(2..=count, slots));
    ensure!(old.capacity() == slots && new.capacity() == slots, "a table of another length");
    let beyond = (0..TABLE_LEN).filter(|key| {
        let (old, new) = (old.get(key), new.get(key));
        old != new && old != Some(&1)
    });
    Ok(sample(count, build_ms, rebuild_ms, beyond.count()))
}

fn sample(count: u16, build_ms: f64, rebuild_ms: f64, beyond: usize) -> Sample {
    let at = f64::from(count);
    Sample::new().with_at(BUILD, at, build_ms).with_at(REBUILD, at, rebuild_ms).with_at(
        BEYOND_NEED,
        at,
        beyond as f64 * 100.0 / f64::from(TABLE_LEN),
    )
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let began = Instant::now();
    let result = black_box(work());
    (result, began.elapsed().as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the crate's reading of the paper moves is in the order of what ours without a predecessor does; with
    /// one, nothing is.
    #[test]
    fn nothing_moves_beyond_need_from_a_predecessor_and_something_without() {
        let beyond = |with: bool| ours(100, with).unwrap().get(BEYOND_NEED, 100.0).unwrap();
        assert_eq!(beyond(true), 0.0);
        let crates = theirs(100).unwrap().get(BEYOND_NEED, 100.0).unwrap();
        assert!((0.05..3.0).contains(&beyond(false)), "{}", beyond(false));
        assert!((0.05..3.0).contains(&crates), "{crates}");
    }
}
