//! The maps of what XDP spreads.

use lb_abi::meta::FLAG_SPREAD;

use super::*;

#[test]
fn packets_are_spread_until_somebody_says_otherwise() {
    in_namespace(|bench| {
        let armed = |plane: &Plane| plane.sync.meta.flags & FLAG_SPREAD != 0;
        let mut plane = bench.open();
        plane.sync(&Desired::default(), 1).unwrap();
        let beyond = aya::util::nr_cpus().unwrap();
        let refused = plane.arm_spread(&[0, beyond], [80..=80].into_iter(), [1, 2]).unwrap_err().to_string();
        assert!(refused.contains(&format!("map SPREAD_CPUS, core {beyond}")), "{refused}");
        assert!(!armed(&plane));
        drop(plane);

        let mut plane = bench.open();
        plane.arm_spread(&[0], [80..=80, 8000..=8999].into_iter(), [1, 2]).unwrap();
        plane.sync(&Desired { generation: Generation(2), ..Desired::default() }, 2).unwrap();
        assert!(armed(&plane), "a config says nothing about it");
        drop(plane);
        let mut plane = bench.open();
        assert!(armed(&plane), "by empty maps, which spread nothing");
        plane.disarm_spread().unwrap();
        drop(plane);
        assert!(!armed(&bench.open()));
        detach(&bench.pins()).unwrap();
    });
}
