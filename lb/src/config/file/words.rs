//! Words that values may be, with their meanings.

use crate::config::{
    BackendProtocol, Balance, ClientField, Forward, HashBy, Protocol, ProxyHeaders, ProxyVersion, RetryCause,
    Scheme, Spread, Steer, SynCookies, TlsProfile, Transport, XdpMode,
};

/// Words that a value may be.
pub(super) struct Choices<T: 'static> {
    /// Read today, each with its meaning.
    pub(super) supported: &'static [(&'static str, T)],
    /// Names of features that are not built yet: refused by name.
    pub(super) later: &'static [&'static str],
}

/// The same without their meanings.
pub(super) trait Words {
    /// Those that are read today.
    fn words(&self) -> Vec<&'static str>;
}

impl<T> Words for Choices<T> {
    fn words(&self) -> Vec<&'static str> {
        self.supported.iter().map(|(word, _)| *word).collect()
    }
}

/// One of `dns.families`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// One of `dns.families`.
pub(super) const FAMILIES: Choices<Family> =
    Choices { supported: &[("ipv4", Family::V4), ("ipv6", Family::V6)], later: &[] };

/// One of `route.retry.on`.
pub(super) const RETRY_CAUSES: Choices<RetryCause> = Choices {
    supported: &[
        ("connect", RetryCause::Connect),
        ("reset", RetryCause::Reset),
        ("timeout", RetryCause::Timeout),
        ("429", RetryCause::Status(429)),
        ("500", RetryCause::Status(500)),
        ("502", RetryCause::Status(502)),
        ("503", RetryCause::Status(503)),
        ("504", RetryCause::Status(504)),
    ],
    later: &[],
};

/// `pool.health.method`.
pub(super) const CHECK_METHODS: Choices<bool> =
    Choices { supported: &[("GET", false), ("HEAD", true)], later: &[] };

/// `xdp.interfaces[].mode`.
pub(super) const XDP_MODES: Choices<XdpMode> =
    Choices { supported: &[("native", XdpMode::Native), ("generic", XdpMode::Generic)], later: &[] };

/// `xdp.spread`.
pub(super) const SPREADS: Choices<Spread> =
    Choices { supported: &[("on", Spread::On), ("off", Spread::Off)], later: &[] };

/// `vip.forward`.
pub(super) const FORWARDS: Choices<Forward> = Choices {
    supported: &[
        ("ipip", Forward::Ipip),
        ("gue", Forward::Gue),
        ("l2dsr", Forward::L2dsr),
        ("nat", Forward::Nat),
    ],
    later: &[],
};

/// `log.access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Off,
    Json,
    Text,
}

/// One of `log.include`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    Query,
    UserAgent,
    Referer,
}

/// `log.access`.
pub(super) const ACCESSES: Choices<Access> = Choices {
    supported: &[("off", Access::Off), ("json", Access::Json), ("text", Access::Text)],
    later: &[],
};

/// One of `log.include`.
pub(super) const LOG_EXTRAS: Choices<Extra> = Choices {
    supported: &[("query", Extra::Query), ("user_agent", Extra::UserAgent), ("referer", Extra::Referer)],
    later: &[],
};

/// `route.redirect.scheme`.
pub(super) const SCHEMES: Choices<Scheme> =
    Choices { supported: &[("http", Scheme::Http), ("https", Scheme::Https)], later: &[] };

/// `vip.flows`.
pub(super) const FLOWS: Choices<()> = Choices { supported: &[("none", ())], later: &[] };

/// `vip.hash`.
pub(super) const HASHES: Choices<HashBy> = Choices {
    supported: &[
        ("5-tuple", HashBy::Flow),
        ("source", HashBy::Source),
        ("destination-port", HashBy::DestinationPort),
    ],
    later: &[],
};

/// The part of a `vip.ports` entry behind the slash.
pub(super) const TRANSPORTS: Choices<Transport> =
    Choices { supported: &[("tcp", Transport::Tcp), ("udp", Transport::Udp)], later: &[] };

/// `listener.protocol`.
pub(super) const PROTOCOLS: Choices<Protocol> = Choices {
    supported: &[("http", Protocol::Http), ("tcp", Protocol::Tcp), ("udp", Protocol::Udp)],
    later: &[],
};

/// `listener.steer`.
pub(super) const STEERS: Choices<Steer> =
    Choices { supported: &[("auto", Steer::Auto), ("core", Steer::Core), ("hash", Steer::Hash)], later: &[] };

/// `listener.syn_cookies`.
pub(super) const SYN_COOKIES: Choices<SynCookies> =
    Choices { supported: &[("auto", SynCookies::Auto), ("off", SynCookies::Off)], later: &[] };

/// `listener.proxy_protocol`.
pub(super) const PROXY_HEADERS: Choices<ProxyHeaders> = Choices {
    supported: &[
        ("off", ProxyHeaders::Off),
        ("accept", ProxyHeaders::Accept),
        ("require", ProxyHeaders::Require),
    ],
    later: &[],
};

/// `pool.proxy_protocol`.
pub(super) const PROXY_VERSIONS: Choices<ProxyVersion> =
    Choices { supported: &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)], later: &[] };

/// `pool.protocol`.
pub(super) const BACKEND_PROTOCOLS: Choices<BackendProtocol> = Choices {
    supported: &[("http/1.1", BackendProtocol::Http1), ("h2", BackendProtocol::Http2)],
    later: &[],
};

/// `tls.profile`.
pub(super) const TLS_PROFILES: Choices<TlsProfile> = Choices {
    supported: &[
        ("default", TlsProfile::Default),
        ("modern", TlsProfile::Modern),
        ("compatible", TlsProfile::Compatible),
    ],
    later: &[],
};

/// `tls.client_auth.mode`: whether it is required.
pub(super) const CLIENT_MODES: Choices<bool> =
    Choices { supported: &[("required", true), ("optional", false)], later: &[] };

/// One of `tls.client_auth.headers`.
pub(super) const CLIENT_FIELDS: Choices<ClientField> = Choices {
    supported: &[
        ("certificate", ClientField::Certificate),
        ("chain", ClientField::Chain),
        ("subject", ClientField::Subject),
        ("issuer", ClientField::Issuer),
        ("serial", ClientField::Serial),
        ("names", ClientField::Names),
        ("fingerprint", ClientField::Fingerprint),
    ],
    later: &[],
};

/// `pool.balance`.
pub(super) const BALANCES: Choices<Balance> = Choices {
    supported: &[
        ("round-robin", Balance::RoundRobin),
        ("least-connections", Balance::LeastConnections),
        ("p2c", Balance::P2c),
        ("peak-ewma", Balance::PeakEwma),
        ("random", Balance::Random),
        ("maglev", Balance::Maglev),
    ],
    later: &[],
};
