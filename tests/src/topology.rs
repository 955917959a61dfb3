//! A client, a load balancer and two backends on one switch.
//!
//! ```text
//!   client 10.77.0.1    lb 10.77.0.2    b1 10.77.0.11    b2 10.77.0.12     (and fd77::1, ::2, ::11, ::12)
//!      | eth0              | eth0          | eth0           | eth0         + VIPs on lo of b1 and b2
//!   ---+-------------------+---------------+----------------+---- br0 in a namespace of its own
//! ```
//! The switch lets a backend answer a client without passing the load balancer (direct server return).

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{netns::Namespace, passage::Passage, process, wait::PATIENCE};

/// The IPv4 address of every VIP of a test; services differ by port.
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The same for IPv6.
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x10);

/// Both VIP addresses.
pub const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)];

/// MTU of the client's way to a VIP: 1500 less an outer IPv6 header and one of UDP, so that encapsulated packets fit.
const VIP_MTU: u32 = 1452;

/// One machine: a namespace with `eth0` on the switch.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub netns: Namespace,
    /// Address of `eth0`, in 10.77.0.0/24.
    pub v4: Ipv4Addr,
    /// Address of `eth0`, in fd77::/64.
    pub v6: Ipv6Addr,
    /// Short name: `client`, `lb`, `b1`, `b2`.
    pub name: &'static str,
}

/// What an interface has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl std::ops::Sub for LinkCounters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
        }
    }
}

impl Host {
    /// Address of the family that `like` has.
    pub fn address(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }

    /// What a named interface has carried since it was made.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn link_counters(&self, interface: &str) -> Result<LinkCounters> {
        // Not /proc/net, which is a link to the main thread's view.
        let table = self.netns.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let fields: Vec<u64> = table
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == interface)
            .map(|(_, rest)| rest.split_whitespace().filter_map(|n| n.parse().ok()).collect())
            .with_context(|| format!("no interface {interface} in {}", self.name))?;
        let [rx_bytes, rx_packets, _, _, _, _, _, _, tx_bytes, tx_packets, ..] = fields[..] else {
            bail!("unexpected line for {interface}: {table}");
        };
        Ok(LinkCounters { rx_packets, rx_bytes, tx_packets, tx_bytes })
    }

    /// Whether `eth0` carries an XDP program.
    ///
    /// # Errors
    /// The interface cannot be read.
    pub fn has_xdp(&self) -> Result<bool> {
        let mut command = self.netns.command("ip");
        command.args(["link", "show", "dev", "eth0"]);
        Ok(process::run(command, PATIENCE)?.success()?.contains("prog/xdp"))
    }

    /// Asks for one ICMP echo reply.
    ///
    /// # Errors
    /// None comes within a second.
    pub fn ping(&self, target: IpAddr) -> Result<()> {
        let (domain, protocol, request) = match target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
        };
        // A ping socket: the kernel writes identifier and checksum, and hands over matching replies only.
        let socket = self.netns.run(|| Socket::new(domain, Type::DGRAM, Some(protocol)))??;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(&SocketAddr::new(target, 0).into())?;
        let message = [&[request, 0, 0, 0, 0, 0, 0, 1][..], b"what XDP answers itself"].concat();
        socket.send(&message)?;
        let mut reply = [0; 256];
        let size = (&socket).read(&mut reply).with_context(|| format!("no echo reply from {target}"))?;
        ensure!(reply[..size][8..] == message[8..], "the reply carries something else");
        Ok(())
    }

    fn create(prefix: &str, name: &'static str, last: u8) -> Result<Self> {
        let netns = Namespace::create(&format!("{prefix}-{name}"))?;
        // IPv6 is written as if the decimal digits were hexadecimal, so that both families read alike.
        let last_v6: u16 = u16::from_str_radix(&last.to_string(), 16)?;
        let v4 = Ipv4Addr::new(10, 77, 0, last);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last_v6);
        Ok(Self { netns, v4, v6, name })
    }

    /// Addresses and settings, once `eth0` is there.
    fn configure(&self) -> Result<()> {
        self.netns.settings(&[
            ("ipv6/conf/eth0/accept_dad", "0"),
            ("ipv6/conf/eth0/accept_ra", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/eth0/rp_filter", "0"),
            ("ipv4/ping_group_range", "0 0"),
        ])?;
        // A sum that veth leaves for the receiver's stack is lost when XDP sends the packet on: sum at once.
        self.ethtool("eth0", &["tx", "off"])?;
        self.netns.ip(&format!(
            "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up",
            self.v4, self.v6
        ))
    }

    fn ethtool(&self, interface: &str, features: &[&str]) -> Result<()> {
        set_features(&self.netns, interface, features)
    }

    /// Routes both VIPs through `gateway`, as a router in front of a row of load balancers would.
    pub(crate) fn route_vips(&self, gateway: &Self) -> Result<()> {
        self.netns.ip(&format!(
            "route replace {VIP_V4}/32 via {} mtu {VIP_MTU}\nroute replace {VIP_V6}/128 via {} mtu {VIP_MTU}",
            gateway.v4, gateway.v6
        ))
    }

    /// Gives a backend the VIPs, without ever answering ARP for them.
    fn hold_vips(&self) -> Result<()> {
        self.netns.settings(&[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")])?;
        self.netns.ip(&format!("addr add {VIP_V4}/32 dev lo\naddr add {VIP_V6}/128 dev lo nodad"))
    }
}

/// The whole picture above.
#[derive(Debug)]
pub struct Topology {
    /// Where clients run.
    pub client: Host,
    /// Where the daemon runs.
    pub lb: Host,
    /// First backend.
    pub b1: Host,
    /// Second backend.
    pub b2: Host,
    switch: Namespace,
    /// On the switch's port to the load balancer; `None` only while the cables are laid.
    passage: Option<Passage>,
}

impl Topology {
    /// Makes it; the names of the namespaces begin with `prefix`.
    ///
    /// # Errors
    /// A step fails, and is named.
    pub fn create(prefix: &str) -> Result<Self> {
        let switch = Namespace::create(&format!("{prefix}-switch"))?;
        let client = Host::create(prefix, "client", 1)?;
        let lb = Host::create(prefix, "lb", 2)?;
        let b1 = Host::create(prefix, "b1", 11)?;
        let b2 = Host::create(prefix, "b2", 12)?;
        let mut this = Self { client, lb, b1, b2, switch, passage: None };
        this.cable()?;
        this.passage = Some(Passage::attach(&this.switch, "p-lb")?);
        for host in this.hosts() {
            host.configure()?;
        }
        // The kernel's routing lookup for XDP refuses interfaces that do not forward.
        this.lb.netns.settings(&[("ipv4/conf/eth0/forwarding", "1"), ("ipv6/conf/eth0/forwarding", "1")])?;
        this.client.route_vips(&this.lb)?;
        this.b1.hold_vips()?;
        this.b2.hold_vips()?;
        Ok(this)
    }

    /// All four machines.
    pub fn hosts(&self) -> [&Host; 4] {
        [&self.client, &self.lb, &self.b1, &self.b2]
    }

    /// Both backends.
    pub fn backends(&self) -> [&Host; 2] {
        [&self.b1, &self.b2]
    }

    /// All namespaces, the switch too.
    pub fn namespaces(&self) -> [&Namespace; 5] {
        [&self.client.netns, &self.lb.netns, &self.b1.netns, &self.b2.netns, &self.switch]
    }

    /// What all of them are plugged into.
    pub(crate) fn switch(&self) -> &Namespace {
        &self.switch
    }

    fn cable(&self) -> Result<()> {
        // Snooping would hold back neighbour discovery until a querier has spoken.
        let mut lines =
            "link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\n".to_owned();
        for host in self.hosts() {
            let (port, namespace) = (host.name, host.netns.name());
            lines += &format!("link add p-{port} type veth peer name eth0 netns {namespace}\n");
            lines += &format!("link set p-{port} master br0 up\n");
        }
        self.switch.ip(&lines)?;
        for host in self.hosts() {
            // What XDP redirects out of a veth is taken only by a peer that polls: one with GRO.
            set_features(&self.switch, &format!("p-{}", host.name), &["gro", "on"])?;
        }
        // A wire carries whole checksums; a veth leaves them to be computed by a card that is not there, and what
        // changes them by what changed would have nothing to go by.
        set_features(&self.switch, &format!("p-{}", self.lb.name), &["tx", "off"])?;
        Ok(())
    }
}

/// `ethtool -K`.
pub(crate) fn set_features(netns: &Namespace, interface: &str, features: &[&str]) -> Result<()> {
    let mut command = netns.command("ethtool");
    command.args(["-K", interface]).args(features);
    process::run(command, PATIENCE)?.success().with_context(|| format!("ethtool -K {interface}"))?;
    Ok(())
}
