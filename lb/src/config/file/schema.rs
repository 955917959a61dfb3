//! Every key of the file, by table: what we read and of which shape, and what is promised but not built yet.
//!
//! The one list of names: unknown keys, refusals and suggestions all come from here, and so does the JSON Schema.

use super::shape::{Keys, Shape::*};
pub(super) use super::words::*;

/// Top level. The tables of [`LATER_TABLES`] are known too, and refused key by key.
pub(super) const TOP: Keys = Keys {
    supported: &[
        ("version", Version),
        ("runtime", Table(&RUNTIME)),
        ("xdp", Table(&XDP)),
        ("admin", Table(&ADMIN)),
        ("limits", Table(&LIMITS)),
        ("state", Table(&STATE)),
        ("dns", Table(&DNS)),
        ("vip", Named(&VIP)),
        ("listener", Named(&LISTENER)),
        ("route", Named(&ROUTE)),
        ("pool", Named(&POOL)),
        ("node", Later),
        ("log", Table(&LOG)),
        ("upgrade", Table(&UPGRADE)),
        ("health", Table(&PROGRAMS)),
        ("tls", Named(&TLS)),
    ],
    needed: &["version"],
    later: &[],
};

/// Tables of which no key is supported yet.
pub(super) const LATER_TABLES: &[(&str, Keys)] =
    &[("node", Keys { supported: &[], needed: &[], later: &["row", "announce"] })];

/// `[tls.NAME]`.
pub(super) const TLS: Keys = Keys {
    supported: &[
        ("certificate", Either(&[Text, NotEmpty(&Text)])),
        ("key", Either(&[Text, NotEmpty(&Text)])),
        ("ocsp", Either(&[Word("fetch"), Reference, NotEmpty(&Either(&[Word("fetch"), Reference]))])),
        ("names", NotEmpty(&Text)),
        ("default", Boolean),
        ("profile", Choice(&TLS_PROFILES)),
        ("client_auth", Table(&CLIENT_AUTH)),
        ("tickets", Reference),
        ("early_data", Boolean),
        ("early_data_bytes", Size),
    ],
    needed: &["certificate", "key"],
    later: &[],
};

/// `tls.client_auth`.
pub(super) const CLIENT_AUTH: Keys = Keys {
    supported: &[
        ("ca", Reference),
        ("mode", Choice(&CLIENT_MODES)),
        ("crl", Either(&[Reference, NotEmpty(&Reference)])),
        ("headers", Fields(&Choice(&CLIENT_FIELDS))),
    ],
    needed: &["ca", "mode"],
    later: &[],
};

/// `pool.tls`.
pub(super) const POOL_TLS: Keys = Keys {
    supported: &[
        ("verify", Boolean),
        ("ca", Reference),
        ("sni", Text),
        ("certificate", Text),
        ("key", Text),
        ("alpn", NotEmpty(&Text)),
    ],
    needed: &[],
    later: &[],
};

/// `[runtime]`.
pub(super) const RUNTIME: Keys = Keys {
    supported: &[("workers", Either(&[Word("auto"), Number, NotEmpty(&Number)]))],
    needed: &[],
    later: &[],
};

/// `[xdp]`.
pub(super) const XDP: Keys = Keys {
    supported: &[
        ("interfaces", NotEmpty(&Either(&[Text, Table(&INTERFACE)]))),
        ("deny", List(&Text)),
        ("allow", List(&Text)),
        ("outer_source", NotEmpty(&Text)),
        ("spread", Choice(&SPREADS)),
        ("secret", Reference),
        ("new_flows_per_source", Table(&NEW_FLOWS)),
    ],
    needed: &["interfaces"],
    later: &[],
};

/// `xdp.new_flows_per_source`.
pub(super) const NEW_FLOWS: Keys =
    Keys { supported: &[("rate", Text), ("burst", Number), ("above", Text)], needed: &["rate"], later: &[] };

/// One of `xdp.interfaces`, written as a table.
pub(super) const INTERFACE: Keys = Keys {
    supported: &[("name", Text), ("mode", Choice(&XDP_MODES)), ("gateway", Text)],
    needed: &["name"],
    later: &[],
};

/// `[admin]`.
pub(super) const ADMIN: Keys =
    Keys { supported: &[("socket", Text), ("http", Text)], needed: &[], later: &[] };

/// `[limits]`.
pub(super) const LIMITS: Keys = Keys {
    supported: &[
        ("connections", Number),
        ("connections_per_ip", Number),
        ("head_timeout", Duration),
        ("head_bytes", Size),
        ("head_fields", Number),
        ("idle_timeout", Duration),
        ("connect_timeout", Duration),
        ("body_bytes", Either(&[Word("none"), Size])),
        ("rate", Table(&RATE)),
        ("memory", Either(&[Word("auto"), Word("none"), Size])),
        ("h2", Table(&HTTP2)),
    ],
    needed: &[],
    later: &[],
};

/// `limits.h2`.
pub(super) const HTTP2: Keys = Keys {
    supported: &[
        ("streams", Number),
        ("resets", Number),
        ("resets_in_all", Number),
        ("resets_emitted", Number),
        ("pings", Number),
        ("settings", Number),
        ("empty_data", Number),
        ("heads", Number),
        ("continuations", Number),
        ("window_updates", Number),
        ("priorities", Number),
        ("unknown", Number),
    ],
    needed: &[],
    later: &[],
};

/// `limits.rate`.
pub(super) const RATE: Keys =
    Keys { supported: &[("rate", Text), ("burst", Number)], needed: &["rate"], later: &[] };

/// `[state]`.
pub(super) const STATE: Keys = Keys { supported: &[("dir", Text)], needed: &[], later: &[] };

/// `[log]`.
pub(super) const LOG: Keys = Keys {
    supported: &[
        ("access", Choice(&ACCESSES)),
        ("format", Text),
        ("file", Text),
        ("sample", Percent),
        ("include", List(&Choice(&LOG_EXTRAS))),
    ],
    needed: &[],
    later: &[],
};

/// `[upgrade]`.
pub(super) const UPGRADE: Keys =
    Keys { supported: &[("drain_timeout", Duration), ("max_draining", Number)], needed: &[], later: &[] };

/// `[dns]`.
pub(super) const DNS: Keys = Keys {
    supported: &[
        ("servers", NotEmpty(&Text)),
        ("families", NotEmpty(&Choice(&FAMILIES))),
        ("timeout", Duration),
        ("attempts", Number),
        ("ttl_min", Duration),
        ("ttl_max", Duration),
        ("hold", Duration),
    ],
    needed: &[],
    later: &[],
};

/// `[vip.NAME]`.
pub(super) const VIP: Keys = Keys {
    supported: &[
        ("address", NotEmpty(&Text)),
        ("ports", NotEmpty(&Text)),
        ("forward", Choice(&FORWARDS)),
        ("pool", Text),
        ("flows", Choice(&FLOWS)),
        ("nat_source", NotEmpty(&Text)),
        ("hash", Choice(&HASHES)),
        ("quic", Table(&QUIC)),
        ("sources", List(&Table(&SOURCE))),
    ],
    needed: &["address", "ports", "forward", "pool"],
    later: &["on_down"],
};

/// One of `vip.sources`.
pub(super) const SOURCE: Keys =
    Keys { supported: &[("prefix", Text), ("pool", Text)], needed: &["prefix", "pool"], later: &[] };

/// `vip.quic`.
pub(super) const QUIC: Keys =
    Keys { supported: &[("keys", Table(&QUIC_KEYS))], needed: &["keys"], later: &[] };

/// `vip.quic.keys`, by config id.
pub(super) const QUIC_KEYS: Keys = Keys {
    supported: &[
        ("0", Reference),
        ("1", Reference),
        ("2", Reference),
        ("3", Reference),
        ("4", Reference),
        ("5", Reference),
        ("6", Reference),
    ],
    needed: &[],
    later: &[],
};

/// `[listener.NAME]`.
pub(super) const LISTENER: Keys = Keys {
    supported: &[
        ("bind", NotEmpty(&Text)),
        ("protocol", Choice(&PROTOCOLS)),
        ("tls", NotEmpty(&Text)),
        ("pool", Text),
        ("steer", Choice(&STEERS)),
        ("syn_cookies", Choice(&SYN_COOKIES)),
        ("proxy_protocol", Choice(&PROXY_HEADERS)),
        ("trusted_proxies", List(&Text)),
        ("forwarded", Boolean),
        ("h2", Boolean),
        ("h2c", Boolean),
        ("connections", Number),
        ("idle", Duration),
        ("replies", Number),
    ],
    needed: &["bind", "protocol"],
    later: &[],
};

/// `[route.NAME]`.
pub(super) const ROUTE: Keys = Keys {
    supported: &[
        ("listener", Text),
        ("host", NotEmpty(&Text)),
        ("sni", NotEmpty(&Text)),
        ("path", Text),
        ("method", NotEmpty(&Text)),
        ("headers", Fields(&Either(&[Text, Table(&HEADER_TEST)]))),
        ("query", Fields(&Either(&[Text, Table(&QUERY_TEST)]))),
        ("priority", Number),
        ("pool", Text),
        ("redirect", Table(&REDIRECT)),
        ("respond", Table(&RESPOND)),
        ("rewrite", Table(&REWRITE)),
        ("set_headers", Table(&SET_HEADERS)),
        ("timeout", Duration),
        ("deadline", Duration),
        ("idle", Duration),
        ("upgrade", List(&Text)),
        ("retry", Table(&RETRY)),
        ("body_bytes", Either(&[Word("none"), Size])),
        ("rate_limit", Table(&RATE_LIMIT)),
    ],
    needed: &["listener"],
    later: &[],
};

/// `route.rate_limit`.
pub(super) const RATE_LIMIT: Keys = Keys {
    supported: &[("rate", Text), ("burst", Number), ("key", Text)],
    needed: &["rate", "key"],
    later: &[],
};

/// `route.retry`.
pub(super) const RETRY: Keys = Keys {
    supported: &[("on", NotEmpty(&Choice(&RETRY_CAUSES))), ("attempts", Number), ("budget", Percent)],
    needed: &["on"],
    later: &[],
};

/// One of `route.headers`, written as a table.
pub(super) const HEADER_TEST: Keys = Keys {
    supported: &[("exact", Text), ("prefix", Text), ("regex", Text), ("present", Boolean)],
    needed: &[],
    later: &[],
};

/// One of `route.query`, written as a table.
pub(super) const QUERY_TEST: Keys =
    Keys { supported: &[("exact", Text), ("prefix", Text), ("present", Boolean)], needed: &[], later: &[] };

/// `route.redirect`.
pub(super) const REDIRECT: Keys = Keys {
    supported: &[
        ("status", Number),
        ("scheme", Choice(&SCHEMES)),
        ("host", Text),
        ("port", Number),
        ("path", Text),
        ("keep_query", Boolean),
    ],
    needed: &[],
    later: &[],
};

/// `route.respond`.
pub(super) const RESPOND: Keys = Keys {
    supported: &[("status", Number), ("body", Text), ("content_type", Text), ("headers", Fields(&Text))],
    needed: &[],
    later: &[],
};

/// `route.rewrite`.
pub(super) const REWRITE: Keys =
    Keys { supported: &[("host", Text), ("path", Text)], needed: &[], later: &[] };

/// `route.set_headers`.
pub(super) const SET_HEADERS: Keys = Keys {
    supported: &[("request", Table(&HEADER_EDITS)), ("response", Table(&HEADER_EDITS))],
    needed: &[],
    later: &[],
};

/// `route.set_headers.request` and `.response`.
pub(super) const HEADER_EDITS: Keys = Keys {
    supported: &[("set", Fields(&Text)), ("add", Fields(&Text)), ("remove", NotEmpty(&Text))],
    needed: &[],
    later: &[],
};

/// `[health]`.
pub(super) const PROGRAMS: Keys = Keys { supported: &[("programs_dir", Text)], needed: &[], later: &[] };

/// `[pool.NAME]`.
pub(super) const POOL: Keys = Keys {
    supported: &[
        ("balance", Choice(&BALANCES)),
        ("backends", NotEmpty(&Either(&[Text, Table(&BACKEND)]))),
        ("health", Table(&HEALTH)),
        ("keepalive", Table(&KEEPALIVE)),
        ("key", Text),
        ("slow_start", Duration),
        ("backup", NotEmpty(&Either(&[Text, Table(&BACKEND)]))),
        ("max_connections", Number),
        ("queue", Table(&QUEUE)),
        ("breaker", Table(&BREAKER)),
        ("sticky", Table(&STICKY)),
        ("proxy_protocol", Choice(&PROXY_VERSIONS)),
        ("outlier", Table(&OUTLIER)),
        ("panic", Percent),
        ("tls", Table(&POOL_TLS)),
        ("protocol", Choice(&BACKEND_PROTOCOLS)),
    ],
    needed: &["backends"],
    later: &["weight"],
};

/// One of `pool.backends`, written as a table.
pub(super) const BACKEND: Keys = Keys {
    supported: &[
        ("address", Text),
        ("weight", Number),
        ("server_id", Number),
        ("backup", Boolean),
        ("max_connections", Number),
    ],
    needed: &["address"],
    later: &[],
};

/// `pool.health`; of the keys of `CHECK_KINDS` exactly one.
pub(super) const HEALTH: Keys = Keys {
    supported: &[
        ("tcp", Text),
        ("tls", Text),
        ("http", Text),
        ("https", Text),
        ("grpc", Text),
        ("grpcs", Text),
        ("udp", Text),
        ("redis", Text),
        ("postgres", Text),
        ("mysql", Text),
        ("exec", Text),
        ("port", Number),
        ("method", Choice(&CHECK_METHODS)),
        ("status", Text),
        ("body", Either(&[Text, Table(&BODY_TEST)])),
        ("host", Text),
        ("headers", Fields(&Text)),
        ("sni", Text),
        ("verify", Boolean),
        ("ca", Reference),
        ("send", Text),
        ("expect", Text),
        ("every", Duration),
        ("recheck", Duration),
        ("jitter", Duration),
        ("timeout", Duration),
        ("fall", Number),
        ("rise", Number),
    ],
    needed: &[],
    later: &[],
};

/// Keys of `pool.health` that say its kind.
pub(super) const CHECK_KINDS: [&str; 11] =
    ["tcp", "tls", "http", "https", "grpc", "grpcs", "udp", "redis", "postgres", "mysql", "exec"];

/// `pool.health.body`, written as a table.
pub(super) const BODY_TEST: Keys = Keys { supported: &[("regex", Text)], needed: &["regex"], later: &[] };

/// `pool.outlier`.
pub(super) const OUTLIER: Keys = Keys {
    supported: &[
        ("consecutive_errors", Number),
        ("error_ratio", Percent),
        ("latency", Text),
        ("requests", Number),
        ("window", Duration),
        ("ejection", Duration),
        ("ejection_max", Duration),
        ("max_ejected", Percent),
    ],
    needed: &[],
    later: &[],
};

/// `pool.queue`.
pub(super) const QUEUE: Keys =
    Keys { supported: &[("length", Number), ("timeout", Duration)], needed: &[], later: &[] };

/// `pool.breaker`. What else may be too much at once has keys of its own: `max_connections` and `queue`.
pub(super) const BREAKER: Keys = Keys { supported: &[("retries", Number)], needed: &["retries"], later: &[] };

/// `pool.sticky`.
pub(super) const STICKY: Keys =
    Keys { supported: &[("cookie", Text), ("secret", Reference)], needed: &["cookie"], later: &[] };

/// `pool.keepalive`.
pub(super) const KEEPALIVE: Keys =
    Keys { supported: &[("idle", Duration), ("per_worker", Number)], needed: &[], later: &[] };
