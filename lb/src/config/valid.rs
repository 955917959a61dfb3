//! A config that holds: every reference resolves, every value is in range.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{AccessLog, Route};

/// The whole config, valid by construction.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Workers.
    pub runtime: Runtime,
    /// Packet path; `None` where no interface is named.
    pub xdp: Option<Xdp>,
    /// Where the admin API and the metrics are.
    pub admin: Admin,
    /// Limits on the open side, on by default.
    pub limits: Limits,
    /// Where state is kept.
    pub state: State,
    /// `[log]`; `None`: `access = "off"`.
    pub access_log: Option<AccessLog>,
    /// L4 services.
    pub vips: BTreeMap<Arc<str>, Vip>,
    /// L7 and relay services.
    pub listeners: BTreeMap<Arc<str>, Listener>,
    /// HTTP routes.
    pub routes: BTreeMap<Arc<str>, Route>,
    /// Backends with their policies.
    pub pools: BTreeMap<Arc<str>, Pool>,
}

/// `[runtime]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// How many workers and where.
    pub workers: Workers,
}

/// `runtime.workers`.
#[derive(Clone, Debug, PartialEq)]
pub enum Workers {
    /// One per core that we may run on.
    Auto,
    /// That many, on the first cores.
    Count(usize),
    /// One on each of these cores.
    Cores(Vec<usize>),
}

/// `[xdp]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Xdp {
    /// Interfaces that carry `lb_ingress`; never empty.
    pub interfaces: Vec<Interface>,
    /// Denied sources.
    pub deny: Sources,
    /// Sources that are let in all the same: of prefixes of both lists the longest that covers a source decides, and
    /// of equal ones this list's.
    pub allow: Sources,
    /// Prefixes that tunnels are sent from, at most one of each family; none: an address of an interface.
    pub outer_source: Vec<IpNet>,
    /// `new_flows_per_source`; `None`: as many as they like.
    pub new_flows: Option<NewFlows>,
    /// Whether listeners' packets are spread over the workers' cores.
    pub spread: Spread,
    /// `secret = "file:PATH"`; `None`: made in the state directory.
    pub secret: Option<PathBuf>,
}

/// `xdp.deny` or `xdp.allow`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// Those in the config itself.
    pub nets: Vec<IpNet>,
    /// `file:PATH`: files beneath the config's directory with more of them.
    pub files: Vec<PathBuf>,
}

/// `xdp.new_flows_per_source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlows {
    /// SYNs of one source per second, in the long run.
    pub rate: u32,
    /// SYNs of one source at once.
    pub burst: u32,
    /// SYNs per second on one core up to which no source is looked at.
    pub above: u32,
}

/// `xdp.spread`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Where some worker's core owns no receive queue.
    On,
    /// Never. The default: on two cores it cost more than it saved (README).
    #[default]
    Off,
}

/// One of `xdp.interfaces`.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// Name, at most 15 bytes.
    pub name: Arc<str>,
    /// `None`: native first, generic where the driver cannot.
    pub mode: Option<XdpMode>,
    /// Where tunnels go that the routing table has no answer for.
    pub gateway: Option<Gateway>,
}

/// A router on the link of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// By its IP address; the kernel finds its Ethernet address.
    Address(IpAddr),
    /// By its Ethernet address.
    Ethernet([u8; 6]),
}

impl std::fmt::Display for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Ethernet([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
        }
    }
}

/// How an XDP program hangs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the socket buffer was made.
    Generic,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Unix socket of the API.
    pub socket: PathBuf,
    /// Read-only TCP endpoint; `None`: switched off by an empty string.
    pub http: Option<SocketAddr>,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Downstream connections over all workers.
    pub connections: usize,
    /// Downstream connections of one address.
    pub connections_per_ip: usize,
    /// From accept or the end of the last exchange's first byte to the end of the head.
    pub head_timeout: Duration,
    /// Bytes of a head, request line included.
    pub head_bytes: usize,
    /// Fields in a head.
    pub head_fields: usize,
    /// Silence in either direction.
    pub idle_timeout: Duration,
    /// One attempt at one backend.
    pub connect_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 200_000,
            connections_per_ip: 1024,
            head_timeout: Duration::from_secs(10),
            head_bytes: 32 << 10,
            head_fields: 100,
            idle_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(3),
        }
    }
}

/// `[state]`.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Directory of generations, lineage and the generated secret.
    pub dir: PathBuf,
}

/// `[vip.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Vip {
    /// Single addresses.
    pub addresses: Vec<IpAddr>,
    /// Prefixes that stand for all their addresses; not empty where `addresses` is.
    pub prefixes: Vec<IpNet>,
    /// Ports with their protocols; never empty.
    pub ports: Vec<VipPort>,
    /// How packets leave.
    pub forward: Forward,
    /// Name of a pool that exists.
    pub pool: Arc<str>,
    /// `flows = "none"`: never remember.
    pub flows_none: bool,
    /// With [`Forward::Nat`]: addresses that sources are translated to, of the family of `addresses`. Else empty.
    pub nat_source: Vec<IpNet>,
    /// What packets are told apart by.
    pub hash: HashBy,
    /// Datagrams are QUIC's, and led by connection id where that names a server.
    pub quic: Option<Quic>,
    /// Pools of some clients' own, by prefix; the longest one says.
    pub sources: BTreeMap<IpNet, Arc<str>>,
}

impl Forward {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::L2dsr => "l2dsr",
            Self::Nat => "nat",
        }
    }
}

/// `vip.quic`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quic {
    /// `keys`: files of the keys that ids are checked by, by config id (0 to 6); never empty.
    pub keys: BTreeMap<u8, PathBuf>,
}

impl Vip {
    /// Names of every pool that it leads to, its own first; each once.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<str>> {
        let mut seen = std::collections::HashSet::new();
        std::iter::once(&self.pool).chain(self.sources.values()).filter(move |pool| seen.insert(&***pool))
    }

    /// Whether flows to this port are never remembered: `flows = "none"`, and always so for `53/udp`.
    pub fn is_flowless(&self, port: VipPort) -> bool {
        self.flows_none || port == VipPort::one(53, Transport::Udp)
    }

    /// How exactly it names a port of an address, if at all; of all VIPs the one with the greatest answer has it. Length
    /// of the prefix, whether it is a single port, whether a range.
    pub fn exactness(&self, address: IpAddr, port: u16, transport: Transport) -> Option<(u8, bool, bool)> {
        let single = self.addresses.contains(&address).then_some(u8::MAX);
        let prefix = self.prefixes.iter().filter(|net| net.contains(&address)).map(IpNet::prefix_len).max();
        let own = self.ports.iter().filter(|own| own.transport == transport && own.contains(port));
        let (is_single, is_range) = own.map(|own| (own.single().is_some(), own.is_range())).max()?;
        Some((single.or(prefix)?, is_single, is_range))
    }
}

/// One of `vip.ports`: `53/udp`, `8000-8100/tcp`, or `0/tcp` for any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VipPort {
    /// First destination port, host order; 0: any.
    pub port: u16,
    /// Last destination port; with 0 as the first, 65535.
    pub last: u16,
    /// Transport.
    pub transport: Transport,
}

impl VipPort {
    /// A single port.
    pub const fn one(port: u16, transport: Transport) -> Self {
        Self { port, last: port, transport }
    }

    /// Any port.
    pub const fn any(transport: Transport) -> Self {
        Self { port: 0, last: u16::MAX, transport }
    }

    /// The port, if it is a single one.
    pub const fn single(self) -> Option<u16> {
        if self.port == self.last { Some(self.port) } else { None }
    }

    /// Whether it stands for any port.
    pub const fn is_any(self) -> bool {
        self.port == 0
    }

    /// Whether it is neither single nor any.
    pub const fn is_range(self) -> bool {
        self.single().is_none() && !self.is_any()
    }

    /// Whether a port is one of these.
    pub const fn contains(self, port: u16) -> bool {
        self.port <= port && port <= self.last
    }
}

impl std::fmt::Display for VipPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        match self.is_range() {
            true => write!(f, "{}-{}/{transport}", self.port, self.last),
            false => write!(f, "{}/{transport}", self.port),
        }
    }
}

/// Transport protocol of a VIP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// 6.
    Tcp,
    /// 17.
    Udp,
}

/// `vip.hash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashBy {
    /// Addresses, ports and protocol: each flow by itself.
    #[default]
    #[serde(rename = "5-tuple")]
    Flow,
    /// Source address: all flows of a client together, its fragments too.
    Source,
    /// Destination port: all flows to it together.
    DestinationPort,
}

/// `vip.forward`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Encapsulated in IP of the backend's family.
    Ipip,
    /// Encapsulated in UDP (GUE variant 1) of the backend's family.
    Gue,
    /// Unchanged, to the backend's Ethernet address.
    L2dsr,
    /// With source and destination translated; replies are translated back.
    Nat,
}

/// `[listener.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Addresses to bind; none without ranges.
    pub bind: Vec<SocketAddr>,
    /// Further addresses and ports, given to this listener by `lb_lookup`.
    pub ranges: Vec<BindRange>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Pool of a tcp listener (always there), or of an http listener where no route matches.
    pub pool: Option<Arc<str>>,
    /// How a connection finds its worker.
    pub steer: Steer,
    /// Who answers its SYN floods.
    pub syn_cookies: SynCookies,
    /// Clients whose own words about whom they speak for are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether backends get `Forwarded` (RFC 7239) too.
    pub forwarded: bool,
}

impl Listener {
    /// The port of all its addresses, where they have the same.
    pub fn port(&self) -> Option<u16> {
        let ranges = self.ranges.iter().map(|range| Some(range.first).filter(|_| range.first == range.last));
        let mut ports = self.bind.iter().map(|bind| Some(bind.port())).chain(ranges);
        let first = ports.next()??;
        ports.all(|port| port == Some(first)).then_some(first)
    }

    /// `bind` as it is written: addresses, then ranges.
    pub fn spelled(&self) -> Vec<String> {
        let bind = self.bind.iter().map(SocketAddr::to_string);
        bind.chain(self.ranges.iter().map(BindRange::to_string)).collect()
    }
}

/// One of `listener.bind` that no socket can be bound to: a prefix, a range of ports, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindRange {
    /// Addresses; no bits set behind its length.
    pub net: IpNet,
    /// First port, not 0.
    pub first: u16,
    /// Last port, at least the first.
    pub last: u16,
}

impl BindRange {
    /// Whether it has this address and port.
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.net.contains(&address.ip()) && (self.first..=self.last).contains(&address.port())
    }

    /// Whether an address and port lies in both.
    pub fn meets(&self, other: &Self) -> bool {
        let nets = self.net.contains(&other.net) || other.net.contains(&self.net);
        nets && self.first <= other.last && other.first <= self.last
    }
}

/// As it is written in the config.
impl std::fmt::Display for BindRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.net {
            IpNet::V4(net) => write!(f, "{net}:")?,
            IpNet::V6(net) => write!(f, "[{net}]:")?,
        }
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// `listener.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 reverse proxy.
    Http,
    /// Byte relay.
    Tcp,
}

/// `listener.steer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Steer {
    /// By core where every worker's core owns a receive queue, else by hash.
    #[default]
    Auto,
    /// The worker of the core that took the packet.
    Core,
    /// The worker that the flow hash names.
    Hash,
}

/// `listener.syn_cookies`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SynCookies {
    /// XDP, above a flood threshold and when the kernel would send cookies itself.
    #[default]
    Auto,
    /// The kernel alone.
    Off,
}

/// `[pool.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// `None`: not said; maglev behind a VIP, round-robin behind a listener.
    pub balance: Option<Balance>,
    /// Backends; never empty, no two with the same address.
    pub backends: Vec<Backend>,
    /// Active checks; `None`: always up.
    pub health: Option<Health>,
    /// Idle upstream connections.
    pub keepalive: Keepalive,
}

/// `pool.balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// By flow hash through a Maglev table.
    Maglev,
}

/// One of `pool.backends`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backend {
    /// Address.
    pub ip: IpAddr,
    /// Port; always there in a pool that a listener or route uses.
    pub port: Option<u16>,
    /// Share of new work, 1 ..= 1000.
    pub weight: u16,
    /// What QUIC connection ids call it, 1 ..= 4095; no two backends have the same.
    pub server_id: Option<u16>,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// `pool.health`: a TCP connection that is accepted in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// `tcp = "PORT"`; `None` for `tcp = "auto"`: the backend's own port (always there then).
    pub tcp_port: Option<u16>,
    /// From one probe's start to the next.
    pub every: Duration,
    /// Longest wait for one probe, at most `every`.
    pub timeout: Duration,
    /// Failures in a row until down.
    pub fall: u32,
    /// Successes in a row until up.
    pub rise: u32,
}

/// `pool.keepalive`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keepalive {
    /// Longest idle time of a kept connection.
    pub idle: Duration,
    /// Kept connections of one worker to one backend.
    pub per_worker: usize,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), per_worker: 64 }
    }
}
