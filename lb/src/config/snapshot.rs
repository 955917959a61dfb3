//! What a worker needs of a config: indexes instead of names, in the order it looks them up.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    BackendProtocol, Balance, Choosing, Conditions, HeaderEdits, Keepalive, Limits, LogInclude, PoolSecret,
    Protocol, ProxyHeaders, ProxyVersion, RouteAction, RoutePolicy, Segments, Slots, Steer, Udp,
};
use crate::model::{BackendAddress, BackendId, Generation, ListenerId, PoolId, RouteId};

/// Immutable; workers hold it by `Arc` and swap it between turns.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Number of this config.
    pub generation: Generation,
    /// Limits.
    pub limits: Limits,
    /// What an access log is to say; `None`: nothing is logged.
    pub access_log: Option<AccessLogSnapshot>,
    /// By name; [`Self::listener`] finds one by its id.
    pub listeners: Vec<ListenerSnapshot>,
    /// By name; pools that only VIPs use stand here too. [`Self::pool`] finds one by its id.
    pub pools: Vec<PoolSnapshot>,
    /// By [`RouteId`]; names for counters.
    pub routes: Slots<RouteSnapshot>,
}

impl Snapshot {
    /// One listener.
    pub fn listener(&self, id: ListenerId) -> Option<&ListenerSnapshot> {
        // Ids are places until listeners come and go.
        let guess = self.listeners.get(id.index()).filter(|listener| listener.id == id);
        guess.or_else(|| self.listeners.iter().find(|listener| listener.id == id))
    }

    /// One pool.
    pub fn pool(&self, id: PoolId) -> Option<&PoolSnapshot> {
        // As above.
        let guess = self.pools.get(id.index()).filter(|pool| pool.id == id);
        guess.or_else(|| self.pools.iter().find(|pool| pool.id == id))
    }
}

/// The part of `[log]` that workers see to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLogSnapshot {
    /// What is noted beyond the rest.
    pub include: LogInclude,
    /// What share of lines without an error is written, in millionths.
    pub sample_ppm: u32,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct ListenerSnapshot {
    /// Stable over generations.
    pub id: ListenerId,
    /// Name in the config.
    pub name: Arc<str>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Bound addresses.
    pub bind: Vec<SocketAddr>,
    /// How a connection finds its worker.
    pub steer: Steer,
    /// Where connections (tcp) or unrouted requests (http) go.
    pub pool: Option<PoolId>,
    /// The port of all its addresses, where they have the same.
    pub port: Option<u16>,
    /// Clients whose own words about whom they speak for are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether those words come before the first byte.
    pub proxy_protocol: ProxyHeaders,
    /// Whether backends get `Forwarded` (RFC 7239) too.
    pub forwarded: bool,
    /// Whether HTTP/2 may be spoken in the clear, by prior knowledge (RFC 9113, 3.3).
    pub h2c: bool,
    /// Connections over all workers.
    pub connections: Option<usize>,
    /// Of a udp listener.
    pub udp: Udp,
    /// Routes of an http listener, or of a tcp one by server name, most specific first; file order never matters.
    pub routes: Vec<RouteId>,
}

/// One route. A route with several hosts stands here once per host.
#[derive(Clone, Debug)]
pub struct RouteSnapshot {
    /// Its number in [`Snapshot::routes`], the same as long as it is there.
    pub id: RouteId,
    /// Name in the config.
    pub name: Arc<str>,
    /// Name of its listener.
    pub listener: Arc<str>,
    /// Host to match.
    pub host: HostMatch,
    /// Path to match.
    pub path: PathMatch,
    /// What else must hold.
    pub conditions: Arc<Conditions>,
    /// Of routes that are equally specific the greater one wins.
    pub priority: u16,
    /// What becomes of a request.
    pub action: RouteAction<PoolId>,
    /// Fields of the request, on its way to a backend.
    pub request_headers: Arc<HeaderEdits>,
    /// Fields of the response, on its way to the client.
    pub response_headers: Arc<HeaderEdits>,
    /// From the end of the request to the response head.
    pub timeout: Duration,
    /// From the end of the request head to the end of the response.
    pub deadline: Option<Duration>,
    /// What else is done for a request on its way.
    pub policy: Arc<RoutePolicy>,
}

/// Host condition of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    /// Whole host, lower case, without port.
    Exact(Arc<str>),
    /// Suffix with its leading dot.
    Suffix(Arc<str>),
    /// No condition.
    Any,
}

impl HostMatch {
    /// As it is written; `None` where nothing is.
    pub fn spelled(&self) -> Option<String> {
        match self {
            Self::Exact(host) => Some(host.to_string()),
            Self::Suffix(suffix) => Some(format!("*{suffix}")),
            Self::Any => None,
        }
    }
}

/// Path condition of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Whole path.
    Exact(Arc<str>),
    /// Prefix that ends in `/`; the prefix without its last `/` matches too.
    Prefix(Arc<str>),
    /// Segment by segment.
    Segments(Arc<Segments>),
    /// No condition.
    Any,
}

impl PathMatch {
    /// As it is written; `None` where nothing is.
    pub fn spelled(&self) -> Option<String> {
        match self {
            Self::Exact(path) => Some(path.to_string()),
            Self::Prefix(prefix) => Some(format!("{prefix}*")),
            Self::Segments(segments) => Some(segments.text.to_string()),
            Self::Any => None,
        }
    }
}

/// One pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSnapshot {
    /// The same as long as there is a pool of this name.
    pub id: PoolId,
    /// Name in the config.
    pub name: Arc<str>,
    /// Backends that connections can go to, in config order.
    pub backends: Vec<BackendSnapshot>,
    /// Whether names stand for some of them; where they stand for none yet it may be empty.
    pub is_named: bool,
    /// Idle upstream connections; none are kept that began with a client's address.
    pub keepalive: Keepalive,
    /// How a listener chooses among them.
    pub balance: Balance,
    /// What it chooses by beside that.
    pub choosing: Choosing,
    /// Keys its hashes; [`Snapshot::build`] knows none.
    pub secret: PoolSecret,
    /// Signs its cookies; as `secret`.
    pub sticky_secret: PoolSecret,
    /// The header that connections to backends begin with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// What an http listener speaks with its backends.
    pub protocol: BackendProtocol,
}

/// One backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendSnapshot {
    /// Stable over generations.
    pub id: BackendId,
    /// As in the config, for people.
    pub name: Arc<str>,
    /// Where to dial.
    pub address: BackendAddress,
    /// Share of new work.
    pub weight: u16,
    /// Takes work only while none of the others can.
    pub backup: bool,
    /// Exchanges and relays at once, over all workers.
    pub max_connections: Option<u32>,
    /// The name that stands for it, where the config itself does not have it.
    pub origin: Option<Arc<str>>,
}
