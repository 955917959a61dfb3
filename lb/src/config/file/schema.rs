//! Every key of the file, by table: what we read, and what is promised but not built yet.
//!
//! The one list of names: unknown keys, refusals and suggestions all come from here.

use crate::config::{
    Balance, Forward, HashBy, Protocol, Scheme, Spread, Steer, SynCookies, Transport, XdpMode,
};

/// Keys of one table.
pub(super) struct Keys {
    /// Read today.
    pub(super) supported: &'static [&'static str],
    /// Names of features that are not built yet: refused by name.
    pub(super) later: &'static [&'static str],
}

impl Keys {
    /// All names that mean something.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.supported.iter().chain(self.later).copied()
    }
}

/// Words that a value may be.
pub(super) struct Choices<T: 'static> {
    /// Read today, each with its meaning.
    pub(super) supported: &'static [(&'static str, T)],
    /// Names of features that are not built yet: refused by name.
    pub(super) later: &'static [&'static str],
}

/// Top level. The tables of [`LATER_TABLES`] and `tls` are known too, and refused key by key.
pub(super) const TOP: Keys = Keys {
    supported: &[
        "version", "runtime", "xdp", "admin", "limits", "state", "vip", "listener", "route", "pool", "node",
        "log", "upgrade", "health", "tls",
    ],
    later: &[],
};

/// Tables of which no key is supported yet.
pub(super) const LATER_TABLES: &[(&str, Keys)] = &[
    ("node", Keys { supported: &[], later: &["row", "announce"] }),
    ("upgrade", Keys { supported: &[], later: &["drain_timeout", "max_draining"] }),
    ("health", Keys { supported: &[], later: &["programs_dir"] }),
];

/// `[tls.NAME]`, of which no key is supported yet.
pub(super) const TLS: Keys =
    Keys { supported: &[], later: &["certificate", "key", "profile", "client_auth", "default", "ocsp"] };

/// `[runtime]`.
pub(super) const RUNTIME: Keys = Keys { supported: &["workers"], later: &[] };

/// `[xdp]`.
pub(super) const XDP: Keys = Keys {
    supported: &["interfaces", "deny", "allow", "outer_source", "spread", "secret", "new_flows_per_source"],
    later: &[],
};

/// `xdp.new_flows_per_source`.
pub(super) const NEW_FLOWS: Keys = Keys { supported: &["rate", "burst", "above"], later: &[] };

/// One of `xdp.interfaces`, written as a table.
pub(super) const INTERFACE: Keys = Keys { supported: &["name", "mode", "gateway"], later: &[] };

/// `[admin]`.
pub(super) const ADMIN: Keys = Keys { supported: &["socket", "http"], later: &[] };

/// `[limits]`.
pub(super) const LIMITS: Keys = Keys {
    supported: &[
        "connections",
        "connections_per_ip",
        "head_timeout",
        "head_bytes",
        "head_fields",
        "idle_timeout",
        "connect_timeout",
    ],
    later: &["body_bytes", "memory", "rate"],
};

/// `[state]`.
pub(super) const STATE: Keys = Keys { supported: &["dir"], later: &[] };

/// `[log]`.
pub(super) const LOG: Keys =
    Keys { supported: &["access", "format", "file", "sample", "include"], later: &[] };

/// `[vip.NAME]`.
pub(super) const VIP: Keys = Keys {
    supported: &["address", "ports", "forward", "pool", "flows", "nat_source", "hash", "quic", "sources"],
    later: &["on_down"],
};

/// One of `vip.sources`.
pub(super) const SOURCE: Keys = Keys { supported: &["prefix", "pool"], later: &[] };

/// `vip.quic`.
pub(super) const QUIC: Keys = Keys { supported: &["keys"], later: &[] };

/// `vip.quic.keys`, by config id.
pub(super) const QUIC_KEYS: Keys = Keys { supported: &["0", "1", "2", "3", "4", "5", "6"], later: &[] };

/// `[listener.NAME]`.
pub(super) const LISTENER: Keys = Keys {
    supported: &[
        "bind",
        "protocol",
        "pool",
        "steer",
        "syn_cookies",
        "proxy_protocol",
        "trusted_proxies",
        "forwarded",
    ],
    later: &["tls", "h2c"],
};

/// `[route.NAME]`.
pub(super) const ROUTE: Keys = Keys {
    supported: &[
        "listener",
        "host",
        "path",
        "method",
        "headers",
        "query",
        "priority",
        "pool",
        "redirect",
        "respond",
        "rewrite",
        "set_headers",
        "timeout",
        "deadline",
    ],
    later: &["rate_limit", "retry"],
};

/// One of `route.headers`, written as a table.
pub(super) const HEADER_TEST: Keys = Keys { supported: &["exact", "prefix", "regex", "present"], later: &[] };

/// One of `route.query`, written as a table.
pub(super) const QUERY_TEST: Keys = Keys { supported: &["exact", "prefix", "present"], later: &[] };

/// `route.redirect`.
pub(super) const REDIRECT: Keys =
    Keys { supported: &["status", "scheme", "host", "port", "path", "keep_query"], later: &[] };

/// `route.respond`.
pub(super) const RESPOND: Keys =
    Keys { supported: &["status", "body", "content_type", "headers"], later: &[] };

/// `route.rewrite`.
pub(super) const REWRITE: Keys = Keys { supported: &["host", "path"], later: &[] };

/// `route.set_headers`.
pub(super) const SET_HEADERS: Keys = Keys { supported: &["request", "response"], later: &[] };

/// `route.set_headers.request` and `.response`.
pub(super) const HEADER_EDITS: Keys = Keys { supported: &["set", "add", "remove"], later: &[] };

/// `[pool.NAME]`.
pub(super) const POOL: Keys = Keys {
    supported: &["balance", "backends", "health", "keepalive"],
    later: &["sticky", "outlier", "breaker", "slow_start", "backup", "tls", "weight"],
};

/// One of `pool.backends`, written as a table.
pub(super) const BACKEND: Keys = Keys { supported: &["address", "weight", "server_id"], later: &[] };

/// `pool.health`.
pub(super) const HEALTH: Keys =
    Keys { supported: &["tcp", "every", "timeout", "fall", "rise"], later: &["http", "udp"] };

/// `pool.keepalive`.
pub(super) const KEEPALIVE: Keys = Keys { supported: &["idle", "per_worker"], later: &[] };

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
pub(super) const PROTOCOLS: Choices<Protocol> =
    Choices { supported: &[("http", Protocol::Http), ("tcp", Protocol::Tcp)], later: &["udp"] };

/// `listener.steer`.
pub(super) const STEERS: Choices<Steer> =
    Choices { supported: &[("auto", Steer::Auto), ("core", Steer::Core), ("hash", Steer::Hash)], later: &[] };

/// `listener.syn_cookies`.
pub(super) const SYN_COOKIES: Choices<SynCookies> =
    Choices { supported: &[("auto", SynCookies::Auto), ("off", SynCookies::Off)], later: &[] };

/// `listener.proxy_protocol`.
pub(super) const PROXY_PROTOCOLS: Choices<()> =
    Choices { supported: &[("off", ())], later: &["accept", "require"] };

/// `pool.balance`.
pub(super) const BALANCES: Choices<Balance> = Choices {
    supported: &[("round-robin", Balance::RoundRobin), ("maglev", Balance::Maglev)],
    later: &["least-connections", "p2c", "peak-ewma", "random"],
};
