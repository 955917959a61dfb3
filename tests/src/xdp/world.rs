//! What stands in the maps and in the network around a row.
//!
//! ```text
//!  lb0 (index 10, 10.0.0.1/24, fd00::1/64)   the way in; neighbours .11, .13, .14, ::11 known, .99 not
//!  lb1 (index 20, 10.0.1.1/24, fd01::1/64)   neighbours .12, ::12 known
//! ```
//! Nothing else is routed.
#![expect(clippy::expect_used, reason = "a row that cannot be written is a failed test")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_abi::{
    ABI_VERSION, activity,
    backend::{BackendEntry, DOWN, PRESENT},
    be::Be16,
    flow::{FlowKey, FlowRecord},
    hash,
    lengths::{Lengths, VIP_V4, VIP_V6, index},
    limit::{Allowance, Limits},
    link::LinkEntry,
    meta::{FLAG_COOKIES, FLAG_NAT, FLAG_SPREAD, FLAG_WIDE_VIPS, Meta},
    nat::{NatEntry, NatPool},
    quic::{QuicEntry, Server},
    slot::{GRACE_TICKS, Phase, Slot},
    source::{SourceKey, SourceTree},
    spread::Spread,
    steer::{MODE_HASH, SteerEntry, SteerKey},
    subject,
    tag::TagKeys,
    vip::{ECHO, FLOWS_NONE, FORWARD_NAT, FRAGMENTS, NAT_SOURCE, RANGE, VipEntry, VipKey},
};

use crate::packet::{Mac, Packet};

/// Number of the present window of activity.
pub const WINDOW: u16 = 3;
/// Index of the interface that packets come in by.
pub const LB0: u32 = 10;
/// Index of the other one.
pub const LB1: u32 = 20;
/// Ethernet address of `lb0`.
pub const LB0_MAC: Mac = [2, 0, 0, 0, 0, 0x10];
/// Ethernet address of `lb1`.
pub const LB1_MAC: Mac = [2, 0, 0, 0, 0, 0x20];
/// Ethernet address of the router that packets come from.
pub const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 0xfe];
/// MTU of both interfaces.
pub const MTU: u16 = 1500;
/// Outer source of IPIP in IPv4.
pub const OUTER_V4: &str = "10.0.0.1";
/// Outer source of IPIP in IPv6.
pub const OUTER_V6: &str = "fd00::1";
/// Flow idle time of every VIP, in ticks (about 134 s): no row lasts as long.
pub const IDLE: u32 = 1000;
/// Ticks after which no window is open: more than idle time and grace.
pub const OVER: u32 = IDLE + GRACE_TICKS + 100;
/// Slots of every table.
pub const TABLE_LEN: u32 = 7;
/// Entries of map `NAT_FLOWS`, on both sides: two flows.
pub const NAT_FLOWS_LEN: usize = 4;
/// Cores that ports are dealt out to; rows run on the first.
pub const NAT_CORES: u32 = 2;
/// Counter index of every VIP.
pub const VIP: u32 = 3;
/// This box's addresses.
pub const OWN: [&str; 4] = ["10.0.0.1", "10.0.1.1", "fd00::1", "fd01::1"];
/// The cookie of every SYN on the host; the kernel's are another each time.
pub const COOKIE: u32 = 0xdead_beef;
/// What sockets listen at, in the kernel.
pub const SOCKETS: [&str; 4] = ["10.0.0.1:8080", "0.0.0.0:8081", "[fd00::1]:8080", "[::]:8081"];
/// Key of every VIP's flow hash.
pub const HASH_KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// Key of the deny and allow lists.
pub const TAG_KEYS: TagKeys = [[0x0123_4567_89ab_cdef, 0x7654_3210_fedc_ba98], [0x1f2e_3d4c_5b6a_7988, 3]];
/// Keys of the lists.
pub const GUARD_KEY: [u64; 2] = [0x0f1e_2d3c_4b5a_6978, 0x8796_a5b4_c3d2_e1f0];

/// A backend of the rows: its id is its place in [`BACKENDS`] plus one.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// Id.
    pub id: u16,
    /// Address.
    pub address: &'static str,
    /// Ethernet address, where it is known, and the interface it is behind.
    pub neighbour: Option<(Mac, u32)>,
    /// `PRESENT`, `DOWN`.
    pub flags: u32,
}

const fn neighbour(last: u8, interface: u32) -> Option<(Mac, u32)> {
    Some(([2, 0, 0, 0, 0, last], interface))
}

/// Behind `lb0`.
pub const NEAR: Backend =
    Backend { id: 1, address: "10.0.0.11", neighbour: neighbour(0xa1, LB0), flags: PRESENT };
/// Behind `lb1`.
pub const FAR: Backend =
    Backend { id: 2, address: "10.0.1.12", neighbour: neighbour(0xa2, LB1), flags: PRESENT };
/// IPv6 behind `lb0`.
pub const NEAR_V6: Backend =
    Backend { id: 3, address: "fd00::11", neighbour: neighbour(0xa3, LB0), flags: PRESENT };
/// IPv6 behind `lb1`.
pub const FAR_V6: Backend =
    Backend { id: 4, address: "fd01::12", neighbour: neighbour(0xa4, LB1), flags: PRESENT };
/// Its Ethernet address is not known.
pub const SILENT: Backend = Backend { id: 5, address: "10.0.0.99", neighbour: None, flags: PRESENT };
/// No route leads there.
pub const LOST: Backend = Backend { id: 6, address: "203.0.113.9", neighbour: None, flags: PRESENT };
/// Known to be down.
pub const DEAD: Backend =
    Backend { id: 7, address: "10.0.0.13", neighbour: neighbour(0xa7, LB0), flags: PRESENT | DOWN };
/// Another one behind `lb0`.
pub const OTHER: Backend =
    Backend { id: 8, address: "10.0.0.14", neighbour: neighbour(0xa8, LB0), flags: PRESENT };

/// All of them.
pub const BACKENDS: [Backend; 8] = [NEAR, FAR, NEAR_V6, FAR_V6, SILENT, LOST, DEAD, OTHER];

/// An id that no backend has.
pub const NOBODY: u16 = 9;

/// An address in the contract's form.
pub fn address(text: &str) -> [u8; 16] {
    form(text.parse().expect("an IP address"))
}

/// The same of one that is read.
pub fn form(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The first and last of all ports.
pub const ANY: [u16; 2] = [0, u16::MAX];

/// What every VIP has.
fn entry(flags: u32) -> VipEntry {
    VipEntry {
        vip: VIP,
        table: 0,
        table_len: TABLE_LEN,
        flags,
        hash_key: HASH_KEY,
        flow_idle_ticks: IDLE,
        last_port: 0,
        pad: 0,
    }
}

/// [`SOCKETS`], read.
pub fn sockets() -> [SocketAddr; 4] {
    SOCKETS.map(|socket| socket.parse().expect("an address and a port"))
}

/// The key of a flow.
pub fn flow(packet: &Packet) -> FlowKey {
    FlowKey {
        source: form(packet.source().ip()),
        destination: form(packet.destination().ip()),
        source_port: Be16::new(packet.source().port()),
        destination_port: Be16::new(packet.destination().port()),
        protocol: packet.protocol(),
        pad: [0; 3],
    }
}

/// Content of the maps.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Tick that the row runs at; on the kernel, that it was written at.
    pub now: u32,
    /// `META`.
    pub meta: Meta,
    /// `VIPS`.
    pub vips: Vec<(VipKey, VipEntry)>,
    /// The one table, at index 0 of `SLOTS`.
    pub slots: [Slot; TABLE_LEN as usize],
    /// `BACKENDS`.
    pub backends: Vec<(u16, BackendEntry)>,
    /// `QUIC`, by VIP index.
    pub quic: Vec<(u32, QuicEntry)>,
    /// `QUIC_SERVERS`, by server id.
    pub servers: Vec<(u16, Server)>,
    /// Prefixes of clients with tables of their own, as `SOURCES` has them.
    pub sources: Vec<(SourceKey, u32)>,
    /// `SOURCE_TREES`, by set.
    pub trees: Vec<(u32, SourceTree)>,
    /// `SOURCE_SETS`, by VIP index.
    pub sets: Vec<(u32, u32)>,
    /// `LIMITS`.
    pub limits: Limits,
    /// `NEW_FLOWS`, by source.
    pub allowances: Vec<([u8; 16], Allowance)>,
    /// `FLOWS`.
    pub flows: Vec<(FlowKey, FlowRecord)>,
    /// A flow that finds no room there.
    pub crowded: Option<FlowKey>,
    /// `REFUSED_AT`.
    pub refused_at: u32,
    /// What stands in `INSERTS` for the present tick.
    pub spent: u32,
    /// Denied prefixes.
    pub deny: Vec<(IpAddr, u32)>,
    /// Allowed prefixes.
    pub allow: Vec<(IpAddr, u32)>,
    /// `LINKS`.
    pub links: Vec<(u32, LinkEntry)>,
    /// `STEER_LISTENERS`.
    pub listeners: Vec<(SteerKey, SteerEntry)>,
    /// `SPREAD_CORES`, by worker; the hash is a VIP's.
    pub cores: Vec<u32>,
    /// What stands in `SYNS` for the present tick, on each core.
    pub syns: u32,
    /// ICMP errors that may still be sent; on the host only, as the kernel counts them by tick.
    pub answers_left: u32,
    /// Maps of translated flows.
    pub nat: Nat,
}

/// Content of the maps of translated flows.
#[derive(Clone, Debug, Default)]
pub struct Nat {
    /// The VIPs' entry of `NAT_POOLS`.
    pub pool: NatPool,
    /// `NAT_SOURCES`, from index 0 on.
    pub sources: Vec<[u8; 16]>,
    /// The first core's entry of `NAT_POSITION`.
    pub position: u32,
    /// `NAT_OPENING`, the oldest first.
    pub opening: Vec<(FlowKey, NatEntry)>,
    /// `NAT_FLOWS`.
    pub flows: Vec<(FlowKey, NatEntry)>,
}

impl World {
    /// Backends, outer sources, echo keys with answers for both VIP addresses; every slot settled on [`NEAR`].
    pub fn new(now: u32) -> Self {
        let meta = Meta {
            abi: ABI_VERSION,
            flags: 0,
            generation: 1,
            outer_v4: OUTER_V4.parse::<Ipv4Addr>().expect("IPv4").octets(),
            // One of each copy.
            lengths: [1, 0, 1, 0],
            outer_v6: address(OUTER_V6),
            guard_key: GUARD_KEY,
            tag_keys: TAG_KEYS,
            activity: activity::word(WINDOW, 0),
            ..Meta::default()
        };
        let backends = BACKENDS.iter().map(|backend| {
            let entry = BackendEntry {
                address: address(backend.address),
                flags: backend.flags,
                generation: 1,
                ..BackendEntry::default()
            };
            (backend.id, entry)
        });
        let refused_at = now.wrapping_sub(OVER);
        Self { now, meta, backends: backends.collect(), refused_at, answers_left: 1, ..Self::default() }
            .slots(Slot::settled(NEAR.id, 0, now))
            .vip("192.0.2.1", 0, 1, ECHO)
            .vip("2001:db8::1", 0, 58, ECHO)
    }

    /// A key with flags.
    pub fn vip(mut self, vip: &str, port: u16, protocol: u8, flags: u32) -> Self {
        let key = VipKey { address: address(vip), port: Be16::new(port), protocol, host_bits: 0 };
        let entry = entry(flags);
        self.vips.retain(|(old, _)| *old != key);
        self.vips.push((key, entry));
        self
    }

    /// A key with flags, of a prefix with so many host bits and the ports from `first` to `last`: one, a range, or
    /// with 0 to 65535 any.
    pub fn wide(mut self, vip: &str, host_bits: u8, ports: [u16; 2], protocol: u8, flags: u32) -> Self {
        self.meta.flags |= FLAG_WIDE_VIPS;
        let [first, last] = ports;
        let (range, last_port) = if first == last || ports == ANY { (0, 0) } else { (RANGE, last) };
        let address = address(vip);
        let key = VipKey { address, port: Be16::new(first), protocol: protocol | range, host_bits };
        self.vips.push((key, VipEntry { last_port, ..entry(flags) }));
        self
    }

    /// Values of `LENGTHS` for the VIPs' prefixes.
    pub fn lengths(&self) -> Vec<(u32, Lengths)> {
        let mut host_bits = [BTreeSet::new(), BTreeSet::new()];
        for (key, _) in self.vips.iter().filter(|(key, _)| key.host_bits > 0) {
            let is_v6 = Ipv6Addr::from(key.address).to_ipv4_mapped().is_none();
            host_bits[usize::from(is_v6)].insert(u32::from(key.host_bits));
        }
        let [v4, v6] = host_bits.map(Lengths::of);
        let place = |list: usize| index(list, self.meta.lengths[list]);
        vec![(place(VIP_V4), v4), (place(VIP_V6), v6)]
    }

    /// Fragments to both VIP addresses, of TCP and UDP.
    pub fn fragments(mut self, flags: u32) -> Self {
        for (vip, protocol) in [("192.0.2.1", 6), ("192.0.2.1", 17), ("2001:db8::1", 6), ("2001:db8::1", 17)]
        {
            self = self.vip(vip, protocol, FRAGMENTS, flags);
        }
        self
    }

    /// Only the slot of a subject is owned by this backend.
    pub fn owner_of(mut self, subject: &FlowKey, owner: u16) -> Self {
        let slot = hash::slot(subject::hash(HASH_KEY, subject), TABLE_LEN);
        self.slots[slot as usize] = Slot::settled(owner, 0, self.now);
        self
    }

    /// Port 80/tcp and 53/udp of both VIP addresses, forwarded as the flags say.
    pub fn forward(self, flags: u32) -> Self {
        self.vip("192.0.2.1", 80, 6, flags)
            .vip("192.0.2.1", 53, 17, flags)
            .vip("2001:db8::1", 80, 6, flags)
            .vip("2001:db8::1", 53, 17, flags)
    }

    /// VIPs that translate, with these sources.
    pub fn nat(self, sources: &[&str]) -> Self {
        let mut world = self.forward(FORWARD_NAT | FLOWS_NONE);
        world.meta.flags |= FLAG_NAT;
        world.nat.pool = NatPool { first: 0, count: sources.len() as u32, cores: NAT_CORES, pad: 0 };
        world.nat.sources = sources.iter().map(|source| address(source)).collect();
        sources.iter().fold(world, |world, source| {
            world.vip(source, 0, if source.contains(':') { 58 } else { 1 }, NAT_SOURCE)
        })
    }

    /// The port of a backend, for VIPs that translate.
    pub fn port(mut self, id: u16, port: u16) -> Self {
        let of = self.backends.iter_mut().filter(|(other, _)| *other == id);
        of.for_each(|(_, entry)| entry.port = Be16::new(port));
        self
    }

    /// All slots alike.
    pub fn slots(mut self, slot: Slot) -> Self {
        self.slots = [slot; TABLE_LEN as usize];
        self
    }

    /// All slots owned by one backend, and settled.
    pub fn owner(self, owner: u16) -> Self {
        let now = self.now;
        self.slots(Slot::settled(owner, 0, now))
    }

    /// All slots moving since `ago` ticks, in epoch 5.
    pub fn moving(self, owner: u16, previous: u16, phase: Phase, ago: u32) -> Self {
        let changed_at = self.now.wrapping_sub(ago);
        self.slots(Slot::new(owner, previous, phase, 5, changed_at))
    }

    /// All places that a flow's record may have are others'.
    pub fn crowded(self, key: FlowKey) -> Self {
        Self { crowded: Some(key), ..self }
    }

    /// A record last seen `ago` ticks ago.
    pub fn record(mut self, key: FlowKey, backend: u16, epoch: u8, state: u8, ago: u32) -> Self {
        let record = FlowRecord { backend, epoch, state, seen: self.now.wrapping_sub(ago) };
        self.flows.push((key, record));
        self
    }

    /// Outer sources of IPIP that vary in their last bits: these masks'.
    pub fn varied(mut self, v4: u32, v6: u32) -> Self {
        let Meta { outer_v4, outer_v6, .. } = &mut self.meta;
        (*outer_v4, *outer_v6) = ([198, 18, 0, 0], address("2001:db8:9::"));
        (self.meta.outer_v4_mask, self.meta.outer_v6_mask) = (v4.to_be_bytes(), v6.to_be_bytes());
        self
    }

    /// What is known of an interface.
    pub fn link(mut self, interface: u32, entry: LinkEntry) -> Self {
        self.links.push((interface, entry));
        self
    }

    /// A listener's group at an address, with flags; not necessarily of a socket's.
    pub fn listener(mut self, bound: &str, flags: u32) -> Self {
        let bound: SocketAddr = bound.parse().expect("an address and a port");
        let key = SteerKey { address: form(bound.ip()), port: Be16::new(bound.port()), protocol: 6, pad: 0 };
        let entry = SteerEntry { listener: 0, workers: 1, mode: MODE_HASH, flags };
        self.listeners.push((key, entry));
        self
    }

    /// Packets to the ports of [`SOCKETS`] are spread over cores, of which there are two: 0, where every row runs, and 1.
    pub fn spread(mut self, cores: &[u32]) -> Self {
        self.meta.flags |= FLAG_SPREAD;
        self.cores = cores.to_vec();
        self
    }

    /// `SPREAD`.
    pub fn spread_entry(&self) -> Spread {
        Spread { key: HASH_KEY, workers: self.cores.len() as u32, pad: 0 }
    }

    /// SYN cookies are on, and so many SYNs were seen in this tick.
    pub fn flooded(mut self, syns: u32) -> Self {
        self.meta.flags |= FLAG_COOKIES;
        self.syns = syns;
        self
    }

    /// A denied prefix, and flags of `META`.
    pub fn deny(mut self, prefix: &str, bits: u32, flags: u32) -> Self {
        self.deny.push((prefix.parse().expect("an IP address"), bits));
        self.meta.flags |= flags;
        self
    }

    /// An allowed prefix.
    pub fn allow(mut self, prefix: &str, bits: u32) -> Self {
        self.allow.push((prefix.parse().expect("an IP address"), bits));
        self
    }
}
