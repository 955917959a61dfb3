//! SYN cookies between `lb_cookie` and the kernel: who sends them when, and that each takes the other's.
#![expect(clippy::unwrap_used, reason = "a test target: helpers fail the test they help")]

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use aya::{
    maps::{HashMap, LpmTrie, SockMap, lpm_trie::Key},
    programs::{SkLookup, sk_lookup::SkLookupLinkId},
};
use lb_abi::{
    be::Be16,
    bounds::SYNS_PER_TICK,
    lookup::{LookupEntry, LookupRange},
    names,
    steer::{STEER_COOKIES, SteerEntry, SteerKey},
};
use lb_ebpf::verdict::Verdict;
use lb_tests::{
    packet::{ACK, Packet, SYN},
    xdp::{
        kernel::{BACKLOG, Bench, listen, unavailable},
        namespace,
        row::Program,
        tap::Tap,
        world::{LB0, LB0_MAC, ROUTER_MAC, SOCKETS, World, address},
    },
};
use socket2::Socket;

/// One of those that a cookie can remember, by both families.
const MSS: u16 = 1440;
/// The kernel's senders, and their services, by family.
const CLIENTS: [(&str, &str); 2] = [("10.0.0.50", "10.0.0.1:8080"), ("[fd00::50]", "[fd00::1]:8080")];

fn packet(client: &str, port: u16, service: &str, flags: u8) -> Packet {
    Packet::tcp(&format!("{client}:{port}"), service, flags).macs(LB0_MAC, ROUTER_MAC).payload(0)
}

fn set_cookies(value: &str) {
    fs::write("/proc/sys/net/ipv4/tcp_syncookies", value).unwrap();
}

/// A counter of the kernel, of this thread's namespace.
fn counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|other| other == name).unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All sockets take cookies, and a core has had as many SYNs as it leaves to the kernel.
fn flood() -> World {
    let world = World::new(namespace::now_ticks()).flooded(SYNS_PER_TICK);
    SOCKETS.iter().fold(world, |world, at| world.listener(at, STEER_COOKIES))
}

/// One SYN of a flood through `lb_ingress`, not through the wire.
fn run(bench: &mut Bench, syn: &Packet) -> Verdict {
    loop {
        bench.write(&flood()).unwrap();
        let tick = namespace::now_ticks();
        let (verdict, _) = bench.test_run(Program::Ingress, &syn.build()).unwrap();
        if namespace::now_ticks() == tick {
            return verdict;
        }
    }
}

/// A wire end whose frames `lb_ingress` gets, and which gets what that sends.
fn wire(bench: &mut Bench) -> Tap {
    // Without a program its driver drops what XDP sends to it.
    bench.attach(names::PROGRAM_PASS, "peer0").unwrap();
    Tap::new(LB0 + 1).unwrap()
}

/// Opens a connection by hand, its SYN answered by XDP and its ACK wrong by `off`.
fn open(bench: &mut Bench, tap: &Tap, (client, service): (&str, &str), port: u16, off: u32) {
    let [high, low] = MSS.to_be_bytes();
    let syn = packet(client, port, service, SYN).sequence(1000).options(&[2, 4, high, low]);
    let cookie = until("a SYN-ACK", || {
        bench.write(&flood()).unwrap();
        while tap.receive().is_some() {}
        tap.send(&syn.build()).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            let Some(frame) = tap.receive() else { continue };
            let at = syn.ip_at() + if client.starts_with('[') { 40 } else { 20 };
            let is_answer = frame.get(at + 13) == Some(&(SYN | ACK));
            if is_answer && frame[at + 2..at + 4] == port.to_be_bytes() {
                return Some(u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap()));
            }
        }
        None
    });
    let ack = packet(client, port, service, ACK).sequence(1001).acknowledged(cookie.wrapping_add(1 + off));
    tap.send(&ack.build()).unwrap();
}

/// By `net.ipv4.tcp_syncookies` = 1 not before the kernel itself would, by 0 never, by 2 always.
#[test]
fn only_when_the_kernel_would() {
    if let Some(why) = unavailable() {
        return eprintln!("skipped: {why}");
    }
    let mut bench = Bench::new().unwrap();
    let tap = wire(&mut bench);
    for (client, service) in CLIENTS {
        let syn = packet(client, 4000, service, SYN);
        set_cookies("1");
        assert_eq!(run(&mut bench, &syn), Verdict::Pass, "{service}: its queue is empty");
        set_cookies("2");
        assert_eq!(run(&mut bench, &syn), Verdict::Transmit, "{service}: always");
        set_cookies("1");
        // As if nobody knew of cookies, the stack gets them all.
        bench.write(&World::new(namespace::now_ticks())).unwrap();
        let sent = counter("SyncookiesSent");
        (0..4 * BACKLOG as u16)
            .for_each(|at| tap.send(&packet(client, 5000 + at, service, SYN).build()).unwrap());
        until("the kernel's own cookies", || (counter("SyncookiesSent") > sent).then_some(()));
        assert_eq!(run(&mut bench, &syn), Verdict::Transmit, "{service}: its queue is full");
        set_cookies("0");
        assert_eq!(run(&mut bench, &syn), Verdict::Pass, "{service}: never");
    }
}

/// The kernel opens the connection of a cookie that XDP sent, and only of such a one.
#[test]
fn the_kernel_takes_our_cookies() {
    if let Some(why) = unavailable() {
        return eprintln!("skipped: {why}");
    }
    let mut bench = Bench::new().unwrap();
    let tap = wire(&mut bench);
    for (client, socket) in CLIENTS.into_iter().zip([0, 2]) {
        let (taken, refused) = (counter("SyncookiesRecv"), counter("SyncookiesFailed"));
        open(&mut bench, &tap, client, 6000, 0);
        let listener = bench.sockets()[socket].try_clone().unwrap();
        let (connection, peer) = until("a connection", || listener.accept().ok());
        assert_eq!(peer.as_socket().unwrap().port(), 6000);
        assert_eq!(connection.tcp_mss().unwrap(), u32::from(MSS), "the cookie remembers it");
        open(&mut bench, &tap, client, 6001, 0x1234_5678);
        until("a refused cookie", || (counter("SyncookiesFailed") > refused).then_some(()));
        assert!(listener.accept().is_err(), "a wrong cookie opened a connection");
        assert_eq!(counter("SyncookiesRecv"), taken + 1);
    }
}

/// A listener that only `lb_lookup` leads to is found, and only where its addresses are this box's.
#[test]
fn listeners_of_ranges_are_found() {
    if let Some(why) = unavailable() {
        return eprintln!("skipped: {why}");
    }
    let mut bench = Bench::new().unwrap();
    let tap = wire(&mut bench);
    let parked = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let (key, link) = give_range(&mut bench, &parked);
    let service = ("10.0.0.50", "192.0.2.200:9005");
    let syn = packet(service.0, 4000, service.1, SYN);
    let entry = World::default().listener("127.0.0.1:1", STEER_COOKIES).listeners[0].1;
    let listeners = bench.object().map_mut(names::MAP_STEER_LISTENERS).unwrap();
    HashMap::try_from(listeners).unwrap().insert(key, entry, 0).unwrap();
    let route = |arguments: &[&str]| {
        let routed = Command::new("ip").args(["route", "add"]).args(arguments).status();
        assert!(routed.unwrap().success());
    };
    route(&["192.0.2.128/25", "via", "10.0.0.11", "metric", "9"]);
    assert_eq!(run(&mut bench, &syn), Verdict::Pass, "the range is another box's");
    route(&["local", "192.0.2.128/25", "dev", "lo"]);
    assert_eq!(run(&mut bench, &syn), Verdict::Transmit);
    open(&mut bench, &tap, service, 6000, 0);
    until("a connection", || parked.accept().ok());
    take_range(&mut bench, key, link);
}

/// The IPv4 prefix that [`give_range`] gives, as `lb_lookup` finds it.
fn range() -> Key<[u8; 16]> {
    Key::new(96 + 25, address("192.0.2.128"))
}

/// Takes back what [`give_range`] gave, and its listener: the object serves the next bench.
fn take_range(bench: &mut Bench, key: SteerKey, link: SkLookupLinkId) {
    let object = bench.object();
    let listeners = object.map_mut(names::MAP_STEER_LISTENERS).unwrap();
    // It may have gone with the listeners of a world.
    _ = HashMap::<_, SteerKey, SteerEntry>::try_from(listeners).unwrap().remove(&key);
    let prefixes = object.map_mut(names::MAP_LOOKUP_PREFIXES).unwrap();
    LpmTrie::<_, [u8; 16], LookupEntry>::try_from(prefixes).unwrap().remove(&range()).unwrap();
    SockMap::try_from(object.map_mut(names::MAP_LOOKUP_SOCKETS).unwrap()).unwrap().clear_index(&0).unwrap();
    let lookup: &mut SkLookup = object.program_mut(names::PROGRAM_LOOKUP).unwrap().try_into().unwrap();
    lookup.detach(link).unwrap();
    lookup.unload().unwrap();
    bench.restored();
}

/// Gives 192.0.2.128/25, ports 9000 to 9999, to a socket; under which key its listener goes.
fn give_range(bench: &mut Bench, socket: &Socket) -> (SteerKey, SkLookupLinkId) {
    let object = bench.object();
    let mut sockets = SockMap::try_from(object.map_mut(names::MAP_LOOKUP_SOCKETS).unwrap()).unwrap();
    sockets.set(0, socket, 0).unwrap();
    let mut entry = LookupEntry::default();
    entry.ranges[0] = LookupRange { first: 9000, last: 9999, socket: 0, protocol: 6 };
    let mut prefixes = LpmTrie::try_from(object.map_mut(names::MAP_LOOKUP_PREFIXES).unwrap()).unwrap();
    prefixes.insert(&range(), entry, 0).unwrap();
    let lookup: &mut SkLookup = object.program_mut(names::PROGRAM_LOOKUP).unwrap().try_into().unwrap();
    lookup.load().unwrap();
    let link = lookup.attach(fs::File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (SteerKey { address: address("127.0.0.1"), port: Be16::new(port), protocol: 6, pad: 0 }, link)
}
