//! What a route does for a request besides choosing where it goes.

use std::{sync::Arc, time::Duration};

/// Keys of `[route.NAME]` beside matching and action.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutePolicy {
    /// Silence in a body or a tunnel; `None`: `limits.idle_timeout`.
    pub idle: Option<Duration>,
    /// `upgrade`: protocols that a connection may change to, lower case; `None`: `websocket`, which every browser uses and which
    /// needs the backend's consent. Nothing else without being named: what is in a tunnel goes past routes and limits.
    pub upgrade: Option<Arc<[Arc<str>]>>,
    /// `retry`; `None`: a backend that cannot be reached gives way to the next one, and a kept connection that turns out to be
    /// closed to a fresh one; nothing else.
    pub retry: Option<Arc<Retry>>,
    /// `body_bytes`; `None`: `limits.body_bytes`.
    pub body_bytes: Option<u64>,
    /// `rate_limit`; `None`: as often as anybody likes.
    pub rate_limit: Option<Arc<RateLimit>>,
}

/// `body_bytes = "none"`: no limit.
pub const BODY_BYTES_ANY: u64 = u64::MAX;

/// `route.rate_limit`.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// How often.
    pub rate: BurstRate,
    /// Whom it counts.
    pub key: RateBy,
}

/// So many at once, and in the long run so many per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurstRate {
    /// `rate`.
    pub rate: PerTime,
    /// `burst`, at least 1.
    pub burst: u32,
}

/// `100/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerTime {
    /// How many, at least 1.
    pub number: u32,
    /// In so many seconds: 1, 60 or 3600.
    pub seconds: u32,
}

impl PerTime {
    /// From one to the next, in the long run.
    pub fn interval(self) -> Duration {
        Duration::from_secs(self.seconds.into()) / self.number
    }
}

/// As it is written.
impl std::fmt::Display for PerTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = match self.seconds {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.number)
    }
}

/// `rate_limit.key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateBy {
    /// The client's address; of IPv6 its first 64 bits.
    Address,
    /// The value of a field, whose name is lower case. Requests without it are one client.
    Header(Arc<str>),
    /// All requests of the route together.
    Route,
}

/// As it is written.
impl std::fmt::Display for RateBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address => f.write_str("address"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Route => f.write_str("route"),
        }
    }
}

/// `route.retry`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// What another attempt is made for; each once, never empty.
    pub on: Vec<RetryCause>,
    /// Attempts in all, the first one included: 2 ..= 8.
    pub attempts: u32,
    /// Share of the route's requests that may be sent again, in millionths.
    pub budget_ppm: u32,
}

/// What another attempt may be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCause {
    /// The backend could not be reached.
    Connect,
    /// It closed or reset before its response head was complete.
    Reset,
    /// Its response head did not come in time.
    Timeout,
    /// It answered with this.
    Status(u16),
}

/// As it is written.
impl std::fmt::Display for RetryCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

impl RoutePolicy {
    /// Protocols that a connection may change to.
    pub fn upgrades(&self) -> Arc<[Arc<str>]> {
        self.upgrade.clone().unwrap_or_else(Self::upgrades_default)
    }

    /// The same where nothing is written, and of a listener's own pool.
    pub fn upgrades_default() -> Arc<[Arc<str>]> {
        Arc::from([Arc::from("websocket")])
    }
}
