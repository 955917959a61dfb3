//! The object as the loader sees it, at its full bounds, and `lb_steer` on real sockets.
#![expect(clippy::unwrap_used, reason = "a test target: helpers fail the test they help")]

use std::net::SocketAddr;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, PerCpuArray, ReusePortSockArray},
    programs::{SchedClassifier, SkLookup, SkReuseport, Xdp, XdpMode},
};
use lb_abi::{
    ABI_VERSION,
    be::Be16,
    bounds::{CORES_MAX, WORKERS_MAX},
    names,
    steer::{LOAD_LAGGING, MODE_CORE, MODE_HASH, STEER_RELIEVE, SteerCounters, SteerEntry, SteerKey},
};
use lb_tests::xdp::{kernel, namespace};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use socket2::{Domain, Protocol, Socket, Type};

/// Says why and returns where the object cannot be tested.
macro_rules! need_object {
    () => {
        if let Some(why) = kernel::unavailable() {
            eprintln!("skipped: {why}");
            return;
        }
    };
}

#[test]
fn carries_version_and_licence() {
    need_object!();
    let bytes = std::fs::read(kernel::object()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbol_by_name("LB_ABI_VERSION").unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
    assert_eq!(section.name(), Ok(".rodata"));
    let at = symbol.address() as usize;
    assert_eq!(section.data().unwrap()[at..at + 4], ABI_VERSION.to_le_bytes());
    assert_eq!(file.section_by_name("license").unwrap().data().unwrap(), b"Dual MIT/GPL\0");
}

/// Every program passes the verifier with maps of full size, and both XDP programs attach natively to a veth. (Those of
/// captures, which take longer than all others, are loaded where a capture runs.)
#[test]
fn loads_and_attaches_at_full_bounds() {
    need_object!();
    namespace::enter().unwrap();
    let mut ebpf = Ebpf::load_file(kernel::object()).unwrap();
    for (name, interface) in [
        (names::PROGRAM_WHY, ""),
        (names::PROGRAM_INGRESS, "lb0"),
        (names::PROGRAM_DECAP, "lb1"),
        (names::PROGRAM_NAT, ""),
        (names::PROGRAM_COOKIE, ""),
    ] {
        let program: &mut Xdp = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        if !interface.is_empty() {
            program.attach(interface, XdpMode::Driver).unwrap();
        }
        let info = program.info().unwrap();
        println!(
            "{name}: {:?} bytes, {:?} verified",
            info.size_translated(),
            info.verified_instruction_count()
        );
    }
    steer(&mut ebpf);
    let lookup: &mut SkLookup = ebpf.program_mut(names::PROGRAM_LOOKUP).unwrap().try_into().unwrap();
    lookup.load().unwrap();
    lookup.attach(std::fs::File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
    for name in [names::PROGRAM_PROBE_OUT, names::PROGRAM_PROBE_IN] {
        let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
    kernel::place_calls(&mut ebpf).unwrap();
    let pass: &mut Xdp = ebpf.program_mut(names::PROGRAM_PASS).unwrap().try_into().unwrap();
    pass.load().unwrap();
    for name in [
        names::MAP_META,
        names::MAP_VIPS,
        names::MAP_VIP_BUCKETS,
        names::MAP_VIP_ENTRIES,
        names::MAP_VIP_RANGES,
        names::MAP_SLOTS,
        names::MAP_BACKENDS,
        names::MAP_HOPS,
        names::MAP_FLOWS,
        names::MAP_FLOW_KEYS,
        names::MAP_PROGRAMS,
        names::MAP_SYNS,
        names::MAP_INSERTS,
        names::MAP_REFUSED_AT,
        names::MAP_NAT_OPENING,
        names::MAP_NAT_FLOWS,
        names::MAP_NAT_POOLS,
        names::MAP_NAT_SOURCES,
        names::MAP_NAT_POSITION,
        names::MAP_NAT_EVENTS,
        names::MAP_GATES,
        names::MAP_GUARD,
        names::MAP_LENGTHS,
        names::MAP_REASONS,
        names::MAP_INTERFACES,
        names::MAP_DROPS,
        names::MAP_FLOW_EVENTS,
        names::MAP_VIP_TRAFFIC,
        names::MAP_BACKEND_TRAFFIC,
        names::MAP_LOOKUP_PREFIXES,
        names::MAP_LOOKUP_SOCKETS,
        names::MAP_PROBES,
        names::MAP_PROBE_PORTS,
        names::MAP_STEER_LISTENERS,
        names::MAP_STEER_SOCKETS,
        names::MAP_STEER_CORES,
        names::MAP_STEER_COUNTERS,
        names::MAP_WHY,
        names::MAP_ACTIVITY,
        names::MAP_CAPTURE_PROGRAM,
        names::MAP_CAPTURE_FILTER,
        names::MAP_CAPTURE_RING,
        names::MAP_CAPTURE_SCRATCH,
        names::MAP_CAPTURE_COUNTERS,
        names::MAP_CAPTURE_BUDGET,
    ] {
        assert!(ebpf.map(name).is_some(), "no map {name}");
    }
}

fn steer(ebpf: &mut Ebpf) -> &mut SkReuseport {
    let program: &mut SkReuseport = ebpf.program_mut(names::PROGRAM_STEER).unwrap().try_into().unwrap();
    program.load().unwrap();
    program
}

const LISTENER: u32 = 2;
const WORKERS: u32 = 4;

/// A listener group of [`WORKERS`] sockets with `lb_steer`.
struct Group {
    ebpf: Ebpf,
    sockets: Vec<Socket>,
    address: SocketAddr,
    key: SteerKey,
}

impl Group {
    fn new(address: &str, protocol: Protocol, mode: u32) -> Self {
        let mut ebpf =
            EbpfLoader::new().map_max_entries(names::MAP_SLOTS, 1).load_file(kernel::object()).unwrap();
        let mut address: SocketAddr = address.parse().unwrap();
        let kind = if protocol == Protocol::TCP { Type::STREAM } else { Type::DGRAM };
        let sockets = (0..WORKERS).map(|_| {
            let socket = Socket::new(Domain::for_address(address), kind, Some(protocol)).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.set_nonblocking(true).unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(true).unwrap();
            }
            socket.bind(&address.into()).unwrap();
            address = socket.local_addr().unwrap().as_socket().unwrap();
            if protocol == Protocol::TCP {
                socket.listen(512).unwrap();
            }
            socket
        });
        let sockets: Vec<_> = sockets.collect();
        steer(&mut ebpf).attach(&sockets[0]).unwrap();
        let mut group = Self { ebpf, sockets, address, key: SteerKey::default() };
        let key = SteerKey {
            address: match address {
                SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().octets(),
                SocketAddr::V6(v6) => v6.ip().octets(),
            },
            port: Be16::new(address.port()),
            protocol: if protocol == Protocol::TCP { 6 } else { 17 },
            pad: 0,
        };
        group.key = key;
        group.enter(mode, 0);
        group
    }

    fn enter(&mut self, mode: u32, flags: u32) {
        let entry = SteerEntry { listener: LISTENER, workers: WORKERS, mode, flags };
        let map = self.ebpf.map_mut(names::MAP_STEER_LISTENERS).unwrap();
        HashMap::try_from(map).unwrap().insert(self.key, entry, 0).unwrap();
    }

    fn set_load(&mut self, worker: u32, load: u32) {
        let map = self.ebpf.map_mut(names::MAP_STEER_LOADS).unwrap();
        Array::<_, u32>::try_from(map).unwrap().set(worker, load, 0).unwrap();
    }

    fn relieved(&self) -> u64 {
        let map = self.ebpf.map(names::MAP_STEER_RELIEVED).unwrap();
        PerCpuArray::<_, u64>::try_from(map).unwrap().get(&LISTENER, 0).unwrap().iter().sum()
    }

    fn place(&mut self, worker: u32) {
        let map = self.ebpf.map_mut(names::MAP_STEER_SOCKETS).unwrap();
        let index = LISTENER * WORKERS_MAX + worker;
        ReusePortSockArray::try_from(map).unwrap().set(index, &self.sockets[worker as usize], 0).unwrap();
    }

    fn every_core_to(&mut self, worker: u32) {
        let mut cores =
            Array::<_, u32>::try_from(self.ebpf.map_mut(names::MAP_STEER_CORES).unwrap()).unwrap();
        (0..CORES_MAX.min(256)).for_each(|core| cores.set(core, worker + 1, 0).unwrap());
    }

    fn counters(&self) -> SteerCounters {
        let map = self.ebpf.map(names::MAP_STEER_COUNTERS).unwrap();
        let values = PerCpuArray::<_, SteerCounters>::try_from(map).unwrap().get(&LISTENER, 0).unwrap();
        values.iter().fold(SteerCounters::default(), |sum, core| SteerCounters {
            by_core: sum.by_core + core.by_core,
            by_hash: sum.by_hash + core.by_hash,
            missing: sum.missing + core.missing,
        })
    }

    /// Connects `count` times; how many each worker's socket was given.
    fn connect(&self, count: usize) -> Vec<usize> {
        let loopback = if self.address.is_ipv4() { "127.0.0.1" } else { "::1" };
        let target = SocketAddr::new(loopback.parse().unwrap(), self.address.port());
        let clients: Vec<_> = (0..count).map(|_| std::net::TcpStream::connect(target).unwrap()).collect();
        let taken =
            self.sockets.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count()).collect();
        drop(clients);
        taken
    }
}

#[test]
fn steers_by_core() {
    need_object!();
    namespace::enter().unwrap();
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let mut group = Group::new(address, Protocol::TCP, MODE_CORE);
        (0..WORKERS).for_each(|worker| group.place(worker));
        group.every_core_to(2);
        assert_eq!(group.connect(16), [0, 0, 16, 0], "{address}");
        assert_eq!(group.counters(), SteerCounters { by_core: 16, by_hash: 0, missing: 0 }, "{address}");
    }
}

#[test]
fn steers_by_hash_to_every_worker() {
    need_object!();
    namespace::enter().unwrap();
    let mut group = Group::new("0.0.0.0:0", Protocol::TCP, MODE_HASH);
    (0..WORKERS).for_each(|worker| group.place(worker));
    let taken = group.connect(256);
    assert!(taken.iter().all(|count| *count > 20), "{taken:?}");
    assert_eq!(group.counters(), SteerCounters { by_core: 0, by_hash: 256, missing: 0 });
}

#[test]
fn a_missing_socket_is_counted_and_nothing_is_lost() {
    need_object!();
    namespace::enter().unwrap();
    // The core's worker has no socket: the hash finds one of the others, or the kernel does.
    let mut group = Group::new("127.0.0.1:0", Protocol::TCP, MODE_CORE);
    [0, 1, 3].into_iter().for_each(|worker| group.place(worker));
    group.every_core_to(2);
    assert_eq!(group.connect(64).iter().sum::<usize>(), 64);
    let counters = group.counters();
    assert_eq!((counters.by_core, counters.missing), (0, 64));
    assert!(counters.by_hash > 20 && counters.by_hash < 64, "{counters:?}");
    // Nobody at all is in the array.
    let group = Group::new("127.0.0.1:0", Protocol::TCP, MODE_HASH);
    assert_eq!(group.connect(64).iter().sum::<usize>(), 64);
    assert_eq!(group.counters(), SteerCounters { by_core: 0, by_hash: 0, missing: 64 });
}

/// While a worker lags, new connections go to others, where the listener lets them.
#[test]
fn a_worker_that_lags_is_relieved() {
    need_object!();
    namespace::enter().unwrap();
    let mut group = Group::new("127.0.0.1:0", Protocol::TCP, MODE_CORE);
    (0..WORKERS).for_each(|worker| group.place(worker));
    group.every_core_to(2);
    group.set_load(2, LOAD_LAGGING);
    assert_eq!(group.connect(16), [0, 0, 16, 0], "the listener does not let them");
    group.enter(MODE_CORE, STEER_RELIEVE);
    let taken = group.connect(64);
    assert!(taken[2] < 16 && [0, 1, 3].iter().all(|&at| taken[at] > 5), "{taken:?}");
    assert_eq!(group.relieved(), 64 - taken[2] as u64);
    assert_eq!(group.counters().by_core, 16 + taken[2] as u64);
    group.set_load(2, LOAD_LAGGING - 1);
    assert_eq!(group.connect(16), [0, 0, 16, 0], "it has caught up");
    (0..WORKERS).for_each(|worker| group.set_load(worker, 100));
    assert_eq!(group.connect(16), [0, 0, 16, 0], "all lag alike");
}

/// A worker that goes away: who waits to be accepted at its socket is not reset but goes to another's.
#[test]
fn connections_that_wait_follow_the_group_when_their_socket_closes() {
    need_object!();
    namespace::enter().unwrap();
    let mut group = Group::new("127.0.0.1:0", Protocol::TCP, MODE_CORE);
    (0..WORKERS).for_each(|worker| group.place(worker));
    group.every_core_to(2);
    let mut clients: Vec<_> = (0..16).map(|_| std::net::TcpStream::connect(group.address).unwrap()).collect();
    let counters = group.counters();
    assert_eq!(counters, SteerCounters { by_core: 16, by_hash: 0, missing: 0 });
    drop(group.sockets.remove(2));
    let mut accepted = Vec::new();
    let start = std::time::Instant::now();
    while accepted.len() < clients.len() {
        assert!(start.elapsed().as_secs() < 10, "only {} of 16 are left", accepted.len());
        accepted.extend(group.sockets.iter().filter_map(|socket| socket.accept().ok()));
    }
    for client in &mut clients {
        use std::io::Write as _;
        client.write_all(b"still here").unwrap();
    }
}

#[test]
fn steers_datagrams() {
    need_object!();
    namespace::enter().unwrap();
    let mut group = Group::new("[::]:0", Protocol::UDP, MODE_CORE);
    (0..WORKERS).for_each(|worker| group.place(worker));
    group.every_core_to(1);
    let client = std::net::UdpSocket::bind("[::1]:0").unwrap();
    (0..8).for_each(|_| assert_eq!(client.send_to(b"x", ("::1", group.address.port())).unwrap(), 1));
    let received = |socket: &Socket| {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        std::iter::from_fn(|| socket.recv(&mut byte).ok()).count()
    };
    assert_eq!(group.sockets.iter().map(received).collect::<Vec<_>>(), [0, 8, 0, 0]);
    assert_eq!(group.counters(), SteerCounters { by_core: 8, by_hash: 0, missing: 0 });
}
