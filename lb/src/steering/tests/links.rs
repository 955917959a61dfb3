//! Programs on interfaces, and the pins that hold them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use lb_abi::reason::Reason;

use super::{
    super::error::{Holder, Stranger},
    *,
};

#[test]
fn a_link_is_native_outlives_us_and_is_replaced_without_a_gap() {
    in_namespace(|bench| {
        veth("lb0");
        let mut plane = bench.open();
        let attached = plane.attach("lb0", None).unwrap();
        let native =
            Attached { interface: "lb0".into(), mode: XdpMode::Native, replaced: false, fallback: None };
        assert_eq!(attached, native);
        let first = xdp_on("lb0").unwrap();
        assert_eq!(first.mode, XdpMode::Native);
        let link = link_id(&bench.pins().join("link-lb0"));
        // The peer asks for a neighbour, and that comes in; it is not ours.
        command("ip addr add 192.0.2.200/24 dev peer");
        let socket = std::net::UdpSocket::bind("192.0.2.200:0").unwrap();
        let start = Instant::now();
        while plane.stats().unwrap().reason(Reason::NotOurs) == 0 {
            plane.sync(&desired(3), 1000).unwrap();
            socket.send_to(b"who has it", "192.0.2.77:9").unwrap();
            // A guest that is emulated on a busy host takes its time.
            assert!(start.elapsed() < Duration::from_secs(60), "no packet was counted");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(plane);
        assert_eq!(xdp_on("lb0"), Some(first), "the pin holds it");

        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let (mut looks, mut gaps) = (0, 0);
                while !done.load(Ordering::Relaxed) {
                    looks += 1;
                    gaps += u32::from(xdp_on("lb0").is_none());
                }
                (looks, gaps)
            });
            let again = || -> Result<Vec<Attached>> {
                let mut plane = Plane::open(Options { pins: Some(bench.pins()) })?;
                (0..3).map(|_| plane.attach("lb0", None)).collect()
            };
            let replaced = again();
            done.store(true, Ordering::Relaxed);
            let (looks, gaps) = watch.join().unwrap();
            assert!(looks > 0 && gaps == 0, "{gaps} gaps in {looks} looks");
            let expected = Attached { replaced: true, ..native };
            assert_eq!(replaced.unwrap(), vec![expected; 3]);
        });
        assert_ne!(xdp_on("lb0").unwrap().program_id, first.program_id, "it is the new program");
        assert_eq!(link_id(&bench.pins().join("link-lb0")), link, "behind the old link");
    });
}

#[test]
fn modes_are_honoured_or_refused() {
    in_namespace(|bench| {
        let mut plane = bench.open();
        let lo = plane.attach("lo", None).unwrap();
        assert_eq!(lo.mode, XdpMode::Generic);
        assert!(lo.fallback.is_some_and(|why| !why.is_empty()));
        command(&format!("rm {}", bench.pins().join("link-lo").display()));
        // The kernel lets go of a link a moment after its last name.
        let since = Instant::now();
        while xdp_on("lo").is_some() {
            assert!(since.elapsed() < Duration::from_secs(5), "the link outlives its pin");
            std::thread::yield_now();
        }
        assert!(matches!(plane.attach("lo", Some(XdpMode::Native)), Err(Error::Mode { .. })));
        assert!(plane.attach("not-there", None).is_err());

        veth("lb0.5");
        assert_eq!(plane.attach("lb0.5", None).unwrap().mode, XdpMode::Native);
        let generic = plane.attach("lb0.5", Some(XdpMode::Generic)).unwrap();
        assert_eq!((generic.mode, xdp_on("lb0.5").unwrap().mode), (XdpMode::Generic, XdpMode::Generic));
        // It says the mode it has, when none is asked for.
        let again = plane.attach("lb0.5", None).unwrap();
        assert_eq!((again.mode, again.replaced), (XdpMode::Generic, true));
        let stranger = Plane::open(Options::default()).unwrap().attach("lb0.5", None).unwrap_err();
        let id = xdp_on("lb0.5").unwrap().program_id;
        let there = Stranger { id: Some(id), name: Some(names::PROGRAM_INGRESS.into()) };
        assert!(matches!(&stranger, Error::Occupied { other, .. } if *other == there), "{stranger}");
        assert!(stranger.to_string().contains(&format!("(lb_ingress, id {id})")), "{stranger}");
    });
}

#[test]
fn presence_follows_the_kernel() {
    in_namespace(|bench| {
        let mut plane = bench.open();
        let is = |plane: &Plane| plane.presence("lb0").unwrap();
        assert_eq!(is(&plane), Presence::Absent);
        veth("lb0");
        assert_eq!(is(&plane), Presence::Bare);
        plane.attach("lb0", None).unwrap();
        assert_eq!(is(&plane), Presence::Attached);
        plane.attach("lb0", None).unwrap();
        assert_eq!(is(&plane), Presence::Attached, "by the program that replaced the first");
        command("ip link del lb0");
        assert_eq!(is(&plane), Presence::Absent);
        veth("lb0");
        assert_eq!(is(&plane), Presence::Bare, "it is another interface now");
        plane.forget_interface("lb0");
        plane.attach("lb0", None).unwrap();
        assert_eq!(is(&plane), Presence::Attached);
        command(&format!("rm {}", bench.pins().join("link-lb0").display()));
        let start = Instant::now();
        while is(&plane) != Presence::Bare {
            assert!(start.elapsed() < Duration::from_secs(10), "the program does not leave");
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}

/// What libxdp's loader leaves on an interface looks like this.
#[test]
fn a_dispatcher_is_told_from_other_strangers() {
    let stranger = |name: Option<&str>, id| Stranger { id, name: name.map(str::to_owned) }.to_string();
    assert!(stranger(Some("xdp_dispatcher"), Some(7)).contains("libxdp"));
    assert_eq!(stranger(Some("x"), Some(7)), " (x, id 7)");
    assert_eq!(stranger(None, Some(7)), " (id 7)");
    assert_eq!(stranger(None, None), "");
}

#[test]
fn an_interface_that_came_back_is_attached_anew() {
    in_namespace(|bench| {
        veth("lb0");
        let mut plane = bench.open();
        plane.attach("lb0", None).unwrap();
        command("ip link del lb0");
        veth("lb0");
        assert!(xdp_on("lb0").is_none());
        let attached = plane.attach("lb0", None).unwrap();
        assert!(!attached.replaced && xdp_on("lb0").is_some());
        command("ip link set lb0 down");
        command("ip link set lb0 name lb1");
        veth_named("lb0", "peer2");
        let attached = plane.attach("lb0", None).unwrap();
        assert!(!attached.replaced && xdp_on("lb0").is_some());
    });
}

fn veth_named(name: &str, peer: &str) {
    command(&format!("ip link add name {name} type veth peer name {peer}"));
}

#[test]
fn detach_removes_what_is_ours_and_tells() {
    in_namespace(|bench| {
        veth("lb0.5");
        let mut plane = bench.open();
        plane.attach("lb0.5", None).unwrap();
        std::fs::create_dir(bench.pins().join("stranger")).unwrap();
        let detached = detach(&bench.pins()).unwrap();
        assert_eq!(detached.interfaces, ["lb0.5"]);
        assert_eq!(detached.maps.len(), maps::SHAPES.len());
        assert_eq!(detached.left, ["stranger"]);
        assert!(xdp_on("lb0.5").is_none(), "even while a process still runs");
        std::fs::remove_dir(bench.pins().join("stranger")).unwrap();
        assert_eq!(detach(&bench.pins()).unwrap(), Detached::default());
        assert!(!bench.pins().exists());
        assert_eq!(detach(&bench.pins()).unwrap(), Detached::default());
    });
}

#[test]
fn renamed_interfaces_keep_their_link() {
    in_namespace(|bench| {
        veth("lb0");
        veth_named("lb1", "peer1");
        let mut plane = bench.open();
        for interface in ["lb0", "lb1"] {
            plane.attach(interface, None).unwrap();
        }
        let pin = |interface: &str| bench.pins().join(format!("link-{interface}"));
        let (first, second) = (link_id(&pin("lb0")), link_id(&pin("lb1")));
        drop(plane);
        let rename = |from: &str, to: &str| {
            command(&format!("ip link set {from} down"));
            command(&format!("ip link set {from} name {to}"));
        };
        // Each has the other's name now, so that either pin lies in the other's way.
        rename("lb0", "x");
        rename("lb1", "lb0");
        rename("x", "lb1");
        let mut plane = bench.open();
        for interface in ["lb0", "lb1"] {
            assert!(plane.attach(interface, None).unwrap().replaced, "{interface}");
        }
        assert_eq!((link_id(&pin("lb0")), link_id(&pin("lb1"))), (second, first));
        assert!(plane.detach_others().unwrap().is_empty());
        drop(plane);

        rename("lb0", "new");
        let mut plane = bench.open();
        assert!(plane.attach("new", None).unwrap().replaced, "else it is refused as taken");
        assert_eq!(plane.detach_others().unwrap(), ["lb1"], "no config names it any more");
        assert!(xdp_on("lb1").is_none() && xdp_on("new").is_some());
        assert!(!pin("lb1").exists());
    });
}

#[test]
fn a_second_daemon_on_the_same_pins_is_told_of_the_first() {
    in_namespace(|bench| {
        let first = bench.open();
        let error = Plane::open(Options { pins: Some(bench.pins()) }).err().unwrap();
        let (own, said) = (std::process::id(), error.to_string());
        assert!(matches!(error, Error::Held { by: Holder(Some(pid)), .. } if pid == own), "{said}");
        assert!(said.contains(&format!("(pid {own})")), "{said}");
        drop(first);
        bench.open();
    });
}
