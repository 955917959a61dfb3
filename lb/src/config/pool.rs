//! `[pool.NAME]`: backends, and what is common to them.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::{Choosing, Health, PoolTls, ProxyVersion};
use crate::model::{BackendAddress, BackendName, UnixAddress};

/// `[pool.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// `None`: not said; maglev behind a VIP, round-robin behind a listener.
    pub balance: Option<Balance>,
    /// Backends that the config has itself; no two in the same place. Empty only where there are `names`.
    pub backends: Vec<Backend>,
    /// Names that stand for further ones; none in a pool that a VIP uses.
    pub names: Vec<NamedBackends>,
    /// Active checks; `None`: always up.
    pub health: Option<Health>,
    /// Idle upstream connections.
    pub keepalive: Keepalive,
    /// What a listener chooses by beside `balance`.
    pub choosing: Choosing,
    /// The header that connections to backends begin with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How TLS is spoken with backends; `None`: it is not.
    pub tls: Option<PoolTls>,
    /// What an http listener speaks with them.
    pub protocol: BackendProtocol,
}

impl Pool {
    /// The file of authorities that its checks go by.
    pub fn check_ca(&self) -> Option<&Path> {
        self.health.as_ref()?.kind.tls()?.trust.file()
    }
}

/// `pool.protocol`, as ALPN has it (RFC 7301).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub enum BackendProtocol {
    /// HTTP/1.1, one exchange at a time on each connection.
    #[default]
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2, several exchanges on each; without TLS by prior knowledge.
    #[serde(rename = "h2")]
    Http2,
}

/// `pool.balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the least going on for its weight.
    LeastConnections,
    /// Of two by lot the one with less going on.
    P2c,
    /// Of two by lot the one that will probably answer first.
    PeakEwma,
    /// By lot, by weight.
    Random,
    /// Through a Maglev table: behind a VIP by flow hash, behind a listener by `pool.key`.
    Maglev,
}

/// One of `pool.backends`.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Where it is.
    pub place: BackendPlace,
    /// Share of new work, 1 ..= 1000.
    pub weight: u16,
    /// What QUIC connection ids call it, 1 ..= 4095; no two backends have the same.
    pub server_id: Option<u16>,
    /// Takes work only while none of the others can.
    pub backup: bool,
    /// Exchanges and relays at once, over all workers.
    pub max_connections: Option<u32>,
    /// The name that stands for it, where the config itself does not have it.
    pub origin: Option<BackendName>,
}

impl Backend {
    /// With that address, and nothing else said.
    pub const fn at(ip: IpAddr, port: Option<u16>) -> Self {
        Self {
            place: BackendPlace::Ip(ip, port),
            weight: 1,
            server_id: None,
            backup: false,
            max_connections: None,
            origin: None,
        }
    }

    /// Its IP address, if it has one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self.place {
            BackendPlace::Ip(ip, _) => Some(ip),
            BackendPlace::Unix(_) => None,
        }
    }

    /// Its port, if it has one.
    pub const fn port(&self) -> Option<u16> {
        match self.place {
            BackendPlace::Ip(_, port) => port,
            BackendPlace::Unix(_) => None,
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(f)
    }
}

/// Where one of `pool.backends` is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendPlace {
    /// Address and port; the port is always there in a pool that a listener or route uses.
    Ip(IpAddr, Option<u16>),
    /// A socket of this host; in no pool that a VIP or a udp listener uses.
    Unix(UnixAddress),
}

impl BackendPlace {
    /// Where to dial.
    pub fn address(&self) -> BackendAddress {
        match self {
            Self::Ip(ip, port) => SocketAddr::new(*ip, port.unwrap_or(0)).into(),
            Self::Unix(address) => BackendAddress::Unix(address.clone()),
        }
    }
}

impl std::fmt::Display for BackendPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip, Some(port)) => SocketAddr::new(*ip, *port).fmt(f),
            Self::Ip(ip, None) => ip.fmt(f),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

/// One of `pool.backends` that is a name. What is said of it holds for every backend that it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedBackends {
    /// What is asked.
    pub name: BackendName,
    /// Share of new work of each; of a service's, where the service says nothing.
    pub weight: u16,
    /// They take work only while none of the others can.
    pub backup: bool,
    /// Exchanges and relays with each at once, over all workers.
    pub max_connections: Option<u32>,
}

/// `pool.keepalive`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keepalive {
    /// Longest idle time of a kept connection.
    pub idle: Duration,
    /// Kept connections of one worker to one backend. As many as were busy at once are worth keeping, so the default
    /// is only a bound; ages clear away what is not used again.
    pub per_worker: usize,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), per_worker: 1024 }
    }
}
