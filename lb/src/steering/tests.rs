//! The plane against the kernel: each test in a network and mount namespace of its own, with its own bpffs.
//!
//! They need root and the object; without these they say why and do nothing, which in CI is a failure.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use aya::programs::links::PinnedLink;
use lb_abi::reason::Reason;

use super::*;
use crate::config::{Forward, Transport, VipPort};

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
        weight: 1,
    };
    Desired {
        generation: Generation(5),
        vips: vec![DesiredVip {
            name: "dns".into(),
            addresses: vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()],
            ports: vec![
                VipPort { port: 53, transport: Transport::Udp },
                VipPort { port: 53, transport: Transport::Tcp },
            ],
            forward: Forward::Ipip,
            pool: "dns".into(),
            flows_none: false,
            flow_idle: Duration::from_secs(1),
            hash_key: [1, 2],
        }],
        pools: vec![DesiredPool {
            name: "dns".into(),
            table_key: [3, 4],
            backends: (1..=backends).map(backend).collect(),
            lineage: None,
        }],
        deny: vec!["203.0.113.0/24".parse().unwrap(), "2001:db8:bad::/48".parse().unwrap()],
        outer_v4: Some([192, 0, 2, 1].into()),
        outer_v6: None,
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
        assert!(status.pools["dns"].slots.open > 0);
        assert_eq!(status.lingering, [BackendId(3)]);
        let mut now = 2000;
        while plane.status().pools["dns"].slots.open + plane.status().pools["dns"].slots.closed > 0 {
            now += 5;
            assert!(now < 2100, "a second of memory and one of grace are over");
            plane.tick(now).unwrap();
        }
        plane.tick(now).unwrap();
        assert_eq!(plane.backends().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 2]);
        plane.sync(&Desired::default(), 3000).unwrap();
        plane.tick(3001).unwrap();
        assert_eq!((plane.maps.vips.keys().count(), plane.backends().count()), (0, 0));
        assert_eq!((plane.maps.deny_v4.keys().count(), plane.maps.deny_v6.keys().count()), (0, 0));
    });
}

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
        // Both ends are up, so neighbour discovery of the peer comes in; none of it is ours.
        command("ip addr add 192.0.2.200/24 dev peer");
        let start = Instant::now();
        while plane.stats().unwrap().reason(Reason::NotOurs) == 0 {
            plane.sync(&desired(3), 1000).unwrap();
            assert!(start.elapsed() < Duration::from_secs(10), "no packet was counted");
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
        assert!(matches!(stranger, Error::Occupied { .. }), "{stranger}");
    });
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

/// Listening sockets of one group.
fn group(count: usize) -> (SocketAddr, Vec<socket2::Socket>) {
    use socket2::{Domain, Socket, Type};
    let mut address: SocketAddr = ([127, 0, 0, 1], 0).into();
    let sockets = (0..count)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(128).unwrap();
            socket.set_nonblocking(true).unwrap();
            address = socket.local_addr().unwrap().as_socket().unwrap();
            socket
        })
        .collect();
    (address, sockets)
}

fn accepted(socket: &socket2::Socket) -> usize {
    std::iter::from_fn(|| socket.accept().ok()).count()
}

fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[test]
fn the_core_that_takes_the_packet_chooses_the_worker() {
    in_namespace(|bench| {
        let (address, sockets) = group(2);
        let with_ids: Vec<_> =
            (0..).zip(&sockets).map(|(worker, socket)| (WorkerId(worker), socket.as_fd())).collect();
        let mut plane = bench.open();
        let group = Group { address, protocol: 6, sockets: &with_ids, mode: SteerMode::Core };
        // Over loopback the packet is taken on the sender's core: this one belongs to worker 1.
        let mut cores = rustix::thread::CpuSet::new();
        cores.set(0);
        rustix::thread::sched_setaffinity(None, &cores).unwrap();
        plane.steer_cores(&[(0, WorkerId(1)), (1, WorkerId(0))]).unwrap();
        plane.steer(&group).unwrap();
        let streams = connect(address, 20);
        assert_eq!((accepted(&sockets[0]), accepted(&sockets[1])), (0, 20));
        let counters = plane.steer_counters().unwrap();
        assert_eq!((counters[0].0, counters[0].2.by_core), (address, 20));

        plane.steer(&Group { mode: SteerMode::Hash, ..group }).unwrap();
        let more = connect(address, 64);
        let taken = (accepted(&sockets[0]), accepted(&sockets[1]));
        assert!(taken.0 > 0 && taken.1 > 0 && taken.0 + taken.1 == 64, "{taken:?}");
        assert_eq!(plane.steer_counters().unwrap()[0].2.by_hash, 64);

        plane.unsteer(address, 6).unwrap();
        plane.unsteer(address, 6).unwrap();
        assert!(plane.steer_counters().unwrap().is_empty());
        let last = connect(address, 4);
        assert_eq!(accepted(&sockets[0]) + accepted(&sockets[1]), 4, "the kernel chooses");
        // Accepted and dropped above: every stream has ended.
        for mut stream in streams.into_iter().chain(more).chain(last) {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    });
}

/// Control keeps the plane on a blocking thread.
#[test]
fn a_plane_may_move_between_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<Plane>();
    assert_send::<Decap>();
}
