//! What a worker needs of a config: indexes instead of names, in the order it looks them up.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{Conditions, HeaderEdits, Keepalive, Limits, LogInclude, Protocol, RouteAction, Segments, Steer};
use crate::model::{BackendId, Generation, ListenerId, PoolId, RouteId};

/// Immutable; workers hold it by `Arc` and swap it between turns.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Number of this config.
    pub generation: Generation,
    /// Limits.
    pub limits: Limits,
    /// What an access log is to say; `None`: nothing is logged.
    pub access_log: Option<AccessLogSnapshot>,
    /// By [`ListenerId`].
    pub listeners: Vec<ListenerSnapshot>,
    /// By [`PoolId`]; pools that only VIPs use stand here too.
    pub pools: Vec<PoolSnapshot>,
    /// By [`RouteId`]; names for counters.
    pub routes: Vec<RouteSnapshot>,
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
    /// Its place in [`Snapshot::listeners`].
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
    /// Whether backends get `Forwarded` (RFC 7239) too.
    pub forwarded: bool,
    /// Routes of an http listener, most specific first; file order never matters.
    pub routes: Vec<RouteId>,
}

/// One route. A route with several hosts stands here once per host.
#[derive(Clone, Debug)]
pub struct RouteSnapshot {
    /// Its place in [`Snapshot::routes`].
    pub id: RouteId,
    /// Name in the config.
    pub name: Arc<str>,
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
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    /// Its place in [`Snapshot::pools`].
    pub id: PoolId,
    /// Name in the config.
    pub name: Arc<str>,
    /// Backends that connections can go to, in config order.
    pub backends: Vec<BackendSnapshot>,
    /// Idle upstream connections.
    pub keepalive: Keepalive,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct BackendSnapshot {
    /// Stable over generations.
    pub id: BackendId,
    /// As in the config, for people.
    pub name: Arc<str>,
    /// Where to dial; port 0 in a pool that only VIPs use.
    pub address: SocketAddr,
    /// Share of new work.
    pub weight: u16,
}
