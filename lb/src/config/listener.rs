//! `[listener.NAME]`: where connections and datagrams end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{Limits, ProxyHeaders};

/// `[listener.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Addresses to bind; none without ranges.
    pub bind: Vec<SocketAddr>,
    /// Further addresses and ports, given to this listener by `lb_lookup`.
    pub ranges: Vec<BindRange>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Names of the entries whose certificates are shown, each of which exists; empty: it speaks no TLS.
    pub tls: Vec<Arc<str>>,
    /// Pool where no route matches; always there for a tcp listener without routes.
    pub pool: Option<Arc<str>>,
    /// How a connection finds its worker.
    pub steer: Steer,
    /// Who answers its SYN floods.
    pub syn_cookies: SynCookies,
    /// Clients whose own words about whom they speak for are believed; not empty where PROXY headers are looked for.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether those words come before the first byte.
    pub proxy_protocol: ProxyHeaders,
    /// Whether backends get `Forwarded` (RFC 7239) too.
    pub forwarded: bool,
    /// Whether HTTP/2 is agreed on where TLS is spoken and the client wants it.
    pub h2: bool,
    /// Whether HTTP/2 may be spoken in the clear, by prior knowledge (RFC 9113, 3.3).
    pub h2c: bool,
    /// Connections over all workers; `None`: as many as `limits.connections`.
    pub connections: Option<usize>,
    /// Silence that ends a flow of datagrams; `None`: `limits.idle_timeout`.
    pub idle: Option<Duration>,
    /// Datagrams that answer each of a client's; `None`: not known.
    pub replies: Option<u16>,
}

/// What a udp listener is told of its datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Silence that ends a flow.
    pub idle: Duration,
    /// Datagrams that answer each of a client's: once they are here, the flow ends. 0: not known.
    pub replies: u16,
}

impl Default for Udp {
    fn default() -> Self {
        Self { idle: Limits::default().idle_timeout, replies: 0 }
    }
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
    /// Datagrams.
    Udp,
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
