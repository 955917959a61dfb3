//! `pool.health`: how a pool's backends are checked.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Pattern, Transport};

/// `pool.health`.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What is asked.
    pub kind: CheckKind,
    /// Where; `None`: the backend's own port (always there then).
    pub port: Option<u16>,
    /// From one probe's start to the next.
    pub every: Duration,
    /// The same while a change of the verdict is under way; `None`: as `every`.
    pub recheck: Option<Duration>,
    /// Each probe is drawn to be up to so much later.
    pub jitter: Duration,
    /// Longest wait for one probe, at most `every`.
    pub timeout: Duration,
    /// Failures in a row until down.
    pub fall: u32,
    /// Successes in a row until up.
    pub rise: u32,
}

/// The key of `pool.health` that says the kind, and what goes with it.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckKind {
    /// A connection that is accepted.
    Tcp,
    /// A TLS handshake that comes to its end.
    Tls(TlsCheck),
    /// A request that is answered as it should be, with or without TLS.
    Http(HttpCheck),
    /// `grpc.health.v1.Health/Check`, with or without TLS.
    Grpc(GrpcCheck),
    /// A datagram that is answered, or not refused.
    Udp(UdpCheck),
    /// `PING` of RESP.
    Redis,
    /// A startup message without credentials.
    Postgres,
    /// The server's greeting.
    Mysql,
    /// A program beneath `health.programs_dir`, which ends with 0.
    Exec(PathBuf),
}

impl CheckKind {
    /// Its key.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls(_) => "tls",
            Self::Http(HttpCheck { tls: None, .. }) => "http",
            Self::Http(_) => "https",
            Self::Grpc(GrpcCheck { tls: None, .. }) => "grpc",
            Self::Grpc(_) => "grpcs",
            Self::Udp(_) => "udp",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Exec(_) => "exec",
        }
    }

    /// How it speaks TLS, where it does.
    pub const fn tls(&self) -> Option<&TlsCheck> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::Http(HttpCheck { tls, .. }) | Self::Grpc(GrpcCheck { tls, .. }) => tls.as_ref(),
            _ => None,
        }
    }

    /// The host that is asked for, where one is named.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Http(HttpCheck { host, .. }) | Self::Grpc(GrpcCheck { host, .. }) => host.as_deref(),
            _ => None,
        }
    }

    /// What its packets are.
    pub const fn transport(&self) -> Transport {
        match self {
            Self::Udp(_) => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    /// Whether it may go the way of a VIP's traffic. A refusal (ICMP) is addressed to the VIP where the question went
    /// there, so a check that lives by refusals goes to the backend itself, as programs do.
    pub const fn may_go_through(&self) -> bool {
        !matches!(self, Self::Udp(UdpCheck { expect: None, .. }) | Self::Exec(_))
    }
}

/// With `health.tls`, `health.https` and `health.grpcs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCheck {
    /// The name that is asked for and that a certificate must be for; `None`: the host that is asked for, else the
    /// backend's address.
    pub sni: Option<Arc<str>>,
    /// Whose certificates are good.
    pub trust: CheckTrust,
}

/// Whose certificates are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckTrust {
    /// Any that is shown.
    Anyone,
    /// `verify = true`: of the authorities that the host trusts.
    Host,
    /// `ca = "file:PATH"`: of the authorities in this file, beneath the config's directory.
    File(PathBuf),
}

impl CheckTrust {
    /// The file of its authorities.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Anyone | Self::Host => None,
        }
    }
}

/// With `health.grpc` and `health.grpcs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCheck {
    /// The service that is asked after; empty: the whole server.
    pub service: Arc<str>,
    /// The host that is asked for; `None`: the backend's address.
    pub host: Option<Arc<str>>,
    /// How it speaks TLS; `None`: it does not.
    pub tls: Option<TlsCheck>,
}

/// With `health.http` and `health.https`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCheck {
    /// Path and query.
    pub path: Arc<str>,
    /// `HEAD`, else `GET`.
    pub is_head: bool,
    /// Statuses that are right.
    pub status: Statuses,
    /// What the body must hold.
    pub body: Option<BodyTest>,
    /// The host that is asked for; `None`: the backend's address.
    pub host: Option<Arc<str>>,
    /// Further fields.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// How it speaks TLS; `None`: it does not.
    pub tls: Option<TlsCheck>,
}

/// `health.body`, of the first bytes of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyTest {
    /// It holds this text.
    Text(Arc<str>),
    /// It holds a match.
    Pattern(Pattern),
}

/// `health.status`: `"200-299,304"`; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether this one is right.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

impl std::fmt::Display for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

/// With `health.udp`.
#[derive(Clone, Debug, PartialEq)]
pub struct UdpCheck {
    /// The datagram; `None`: an empty one.
    pub send: Option<Payload>,
    /// What the answer must hold; `None`: up is who does not refuse.
    pub expect: Option<Payload>,
}

/// Bytes of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// As it is written: `text`, `hex:...` or `base64:...`.
    pub text: Arc<str>,
    /// What it means.
    pub bytes: Arc<[u8]>,
}
