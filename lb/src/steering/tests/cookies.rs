//! `lb_cookie` in its place.

use lb_abi::meta::FLAG_COOKIES;

use super::*;

#[test]
fn cookies_stay_armed_until_somebody_disarms_them() {
    in_namespace(|bench| {
        let armed = |plane: &Plane| plane.sync.meta.flags & FLAG_COOKIES != 0;
        let mut plane = bench.open();
        plane.sync(&Desired::default(), 1).unwrap();
        assert!(!armed(&plane));
        plane.arm_cookies().unwrap();
        plane.sync(&Desired { generation: Generation(2), ..Desired::default() }, 2).unwrap();
        assert!(armed(&plane), "a config says nothing about them");
        drop(plane);
        // The daemon may be dead for long: XDP goes on, and asks the kernel for a listener that is not there.
        let mut plane = bench.open();
        assert!(armed(&plane));
        let placed = || plane.maps.programs.indices().collect::<std::result::Result<Vec<_>, _>>().unwrap();
        assert_eq!(placed(), (0..names::CALLS).collect::<Vec<_>>());
        plane.arm_cookies().unwrap();
        plane.disarm_cookies().unwrap();
        drop(plane);
        assert!(!armed(&bench.open()));
        assert!(detach(&bench.pins()).unwrap().maps.contains(&names::MAP_PROGRAMS.to_owned()));
    });
}
