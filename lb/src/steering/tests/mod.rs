//! The plane against the kernel: each test in a network and mount namespace of its own, with its own bpffs.
//!
//! They need root and the object; without these they say why and do nothing, which in CI is a failure.

mod cookies;
mod links;
mod spread;
mod steer;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aya::programs::links::PinnedLink;
use lb_abi::reason::Reason;

use super::*;
use crate::config::{Forward, HashBy, Transport, VipPort};

/// A namespace's bpffs; unmounted with the namespace when the test's thread ends.
struct Bench {
    bpffs: PathBuf,
}

impl Bench {
    fn pins(&self) -> PathBuf {
        self.bpffs.join("lb")
    }

    fn open(&self) -> Plane {
        Plane::open(Options { pins: Some(self.pins()) }).unwrap()
    }
}

fn command(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a test on a thread with fresh namespaces, or says why not.
fn in_namespace(test: impl FnOnce(&Bench) + Send) {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("not root")
    } else if embedded_object().is_err() {
        Some("built without packet programs")
    } else {
        None
    };
    if let Some(missing) = missing {
        assert!(std::env::var_os("CI").is_none(), "{missing}, and this is CI");
        eprintln!("skipped: {missing}");
        return;
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let place = format!("lb-steering-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let bpffs = std::env::temp_dir().join(place);
    std::fs::create_dir(&bpffs).unwrap();
    let bench = Bench { bpffs };
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                use rustix::thread::UnshareFlags;
                #[expect(
                    deprecated,
                    reason = "its unsafe successor is about UnshareFlags::FILES, not used here"
                )]
                rustix::thread::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).unwrap();
                command("mount --make-rprivate /");
                command(&format!("mount -t bpf bpf {}", bench.bpffs.display()));
                command("ip link set lo up");
                test(&bench);
            })
            .join()
    });
    std::fs::remove_dir(&bench.bpffs).unwrap();
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn veth(name: &str) {
    command(&format!("ip link add name {name} type veth peer name peer"));
    command(&format!("ip link set {name} up"));
    command("ip link set peer up");
}

fn xdp_on(interface: &str) -> Option<netlink::XdpOnInterface> {
    netlink::xdp_on(netlink::interface_index(interface).unwrap()).unwrap()
}

fn link_id(pin: &Path) -> u32 {
    FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap().id()
}

fn desired(backends: u16) -> Desired {
    let backend = |id: u16| DesiredBackend {
        id: BackendId(id),
        address: if id.is_multiple_of(2) {
            [10, 0, 0, id as u8].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 0, id].into()
        },
        port: None,
        weight: 1,
    };
    Desired {
        generation: Generation(5),
        vips: vec![DesiredVip {
            name: "dns".into(),
            addresses: vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()],
            prefixes: vec![],
            ports: vec![VipPort::one(53, Transport::Udp), VipPort::one(53, Transport::Tcp)],
            forward: Forward::Ipip,
            pool: "dns".into(),
            nat_source: vec![],
            flows_none: false,
            hash: HashBy::Flow,
            flow_idle: Duration::from_secs(1),
            hash_key: [1, 2],
        }],
        pools: vec![DesiredPool {
            name: "dns".into(),
            table_key: [3, 4],
            backends: (1..=backends).map(backend).collect(),
            lineage: None,
        }],
        deny: ["203.0.113.0/24", "2001:db8:bad::/48"].map(|net| net.parse().unwrap()).into(),
        allow: ["203.0.113.8/32"].map(|net| net.parse().unwrap()).into(),
        guard_key: [5, 6],
        local: [[10, 0, 0, 2].into()].into(),
        outer_v4: "192.0.2.1/32".parse().ok(),
        outer_v6: None,
        ..Desired::default()
    }
}

fn slots(plane: &Plane) -> Vec<u64> {
    plane.maps.slots.array().range(0, lb_abi::bounds::TABLE_LEN as usize).iter().map(|slot| slot.0).collect()
}

#[test]
fn pins_outlive_the_process_and_are_adopted() {
    in_namespace(|bench| {
        let mut plane = bench.open();
        plane.sync(&desired(3), 1000).unwrap();
        plane.set_down(&[BackendId(2)].into(), 1001).unwrap();
        let (before, backends) = (slots(&plane), plane.backends().collect::<Vec<_>>());
        drop(plane);

        let mut plane = bench.open();
        assert_eq!(slots(&plane), before);
        assert_eq!(plane.backends().collect::<Vec<_>>(), backends);
        assert_eq!(plane.down(), &[BackendId(2)].into());
        assert_eq!(plane.status().generation, Generation(5));
        plane.sync(&desired(3), 2000).unwrap();
        assert_eq!(slots(&plane), before, "nothing that stays is written");
        let status = plane.status();
        assert_eq!(status.pools["dns"].slots.settled, lb_abi::bounds::TABLE_LEN as usize);
        assert!(status.lingering.is_empty());
        let keys: Vec<_> = plane.maps.vips.keys().map(|key| key.unwrap().protocol).collect();
        assert_eq!(plane.maps.guard.len(), 3, "and sources are listed as they were");
        assert_eq!(keys.len(), 6, "two addresses, each udp, tcp and echo: {keys:?}");
    });
}

#[test]
fn slots_move_and_what_left_goes_in_order() {
    in_namespace(|bench| {
        let mut plane = bench.open();
        plane.sync(&desired(3), 1000).unwrap();
        let before = slots(&plane);
        plane.sync(&desired(2), 2000).unwrap();
        for (old, new) in before.iter().zip(slots(&plane)) {
            assert_eq!(lb_abi::slot::Slot(*old).owner() == 3, *old != new);
        }
        let status = plane.status();
        let open = status.pools["dns"].slots.open;
        assert!(open > 0);
        let why = "backend fd00::3 removed by generation 5".to_owned();
        assert_eq!(status.pools["dns"].moves, [Move { why, since: Some(2000), open, closed: 0 }]);
        assert_eq!(status.lingering, [BackendId(3)]);
        let mut now = 2000;
        while plane.status().pools["dns"].slots.open + plane.status().pools["dns"].slots.closed > 0 {
            now += 5;
            assert!(now < 2100, "a second of memory and one of grace are over");
            plane.tick(now).unwrap();
        }
        // A program may hold a record for a grace.
        plane.tick(now + lb_abi::slot::GRACE_TICKS + 1).unwrap();
        assert_eq!(plane.backends().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 2]);
        plane.sync(&Desired::default(), 3000).unwrap();
        plane.tick(3001).unwrap();
        assert_eq!((plane.maps.vips.keys().count(), plane.backends().count()), (0, 0));
        assert!(plane.maps.guard.is_empty());
    });
}

#[test]
fn strangers_pins_are_refused_with_the_way_out() {
    in_namespace(|bench| {
        let mut plane = bench.open();
        let meta = lb_abi::meta::Meta { abi: 99, ..Default::default() };
        plane.maps.meta.set(0, meta, 0).unwrap();
        drop(plane);
        let error = Plane::open(Options { pins: Some(bench.pins()) }).err().unwrap();
        assert!(matches!(error, Error::PinnedAbi { pinned: 99, .. }), "{error}");
        assert!(error.to_string().contains("lb detach"));
        detach(&bench.pins()).unwrap();
        drop(bench.open());
        // Another shape under a name of ours.
        std::fs::remove_file(bench.pins().join(names::MAP_BACKENDS)).unwrap();
        let small = aya::maps::MapData::from_pin(bench.pins().join(names::MAP_STEER_CORES)).unwrap();
        small.pin(bench.pins().join(names::MAP_BACKENDS)).unwrap();
        let error = Plane::open(Options { pins: Some(bench.pins()) }).err().unwrap();
        assert!(matches!(error, Error::PinnedShape { map: names::MAP_BACKENDS, .. }), "{error}");

        let elsewhere = std::env::temp_dir().join("lb-steering-nowhere");
        let error = Plane::open(Options { pins: Some(elsewhere) }).err().unwrap();
        assert!(matches!(error, Error::NoBpffs { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf"));
    });
}

#[test]
fn decap_holds_while_it_lives() {
    in_namespace(|_| {
        veth("backend");
        let decap = Decap::attach("backend", None).unwrap();
        assert_eq!(decap.attached().mode, XdpMode::Native);
        assert!(xdp_on("backend").is_some());
        assert_eq!(decap.reasons().unwrap().len(), Reason::ALL.len());
        drop(decap);
        assert!(xdp_on("backend").is_none());
    });
}

/// Control keeps the plane on a blocking thread.
#[test]
fn a_plane_may_move_between_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Plane>();
    assert_send::<Decap>();
}
