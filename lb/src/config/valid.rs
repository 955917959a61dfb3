//! A config that holds: every reference resolves, every value is in range.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use ipnet::IpNet;

use super::{AccessLog, Dns, Limits, Listener, Pool, Route, Tls, Upgrade};

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
    /// `health.programs_dir`: where programs of checks lie; there where a check has one.
    pub programs_dir: Option<PathBuf>,
    /// What becomes of a process that was upgraded.
    pub upgrade: Upgrade,
    /// Who is asked for names.
    pub dns: Dns,
    /// `[log]`; `None`: `access = "off"`.
    pub access_log: Option<AccessLog>,
    /// L4 services.
    pub vips: BTreeMap<Arc<str>, Vip>,
    /// L7 and relay services.
    pub listeners: BTreeMap<Arc<str>, Listener>,
    /// HTTP routes.
    pub routes: RouteMap,
    /// Certificates, and on what terms they are shown.
    pub tls: BTreeMap<Arc<str>, Tls>,
    /// Backends with their policies.
    pub pools: BTreeMap<Arc<str>, Pool>,
}

/// Routes by name; a copy shares them, and two that were made of each other are compared by what was touched.
pub type RouteMap = imbl::OrdMap<Arc<str>, Arc<Route>>;

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
