//! `[listener.NAME]`.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    address,
    pool::reference,
    process::TIMEOUTS,
    reader::{At, Fault, Table, Value},
    schema,
};
use crate::config::{BindRange, Listener, Protocol, ProxyHeaders, Steer, SynCookies};

/// What was read of a listener.
pub(super) struct ListenerDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    pub(super) bind: Vec<At<SocketAddr>>,
    pub(super) ranges: Vec<At<BindRange>>,
    pub(super) protocol: Option<At<Protocol>>,
    pub(super) tls: Vec<At<Arc<str>>>,
    pub(super) pool: Option<At<Arc<str>>>,
    /// Whether there is a key `pool`, readable or not.
    pub(super) has_pool: bool,
    steer: Steer,
    syn_cookies: SynCookies,
    trusted_proxies: Vec<IpNet>,
    proxy_protocol: ProxyHeaders,
    forwarded: bool,
    h2: bool,
    h2c: bool,
    connections: Option<usize>,
    idle: Option<Duration>,
    replies: Option<u16>,
}

impl ListenerDraft {
    pub(super) fn read(name: Arc<str>, table: &Table<'_>) -> Self {
        let rule = "must be an array of addresses with ports, such as [\"0.0.0.0:80\", \"[::]:80\"]";
        let bind = table.required("bind", rule).and_then(|value| value.items(rule));
        let protocol = table.required("protocol", "must be \"http\", \"tcp\" or \"udp\"");
        let steer = table.value("steer").and_then(|value| value.choice(&schema::STEERS));
        let syn_cookies = table.value("syn_cookies").and_then(|value| value.choice(&schema::SYN_COOKIES));
        let connections = table.value("connections").and_then(|value| value.integer(1..10_000_001));
        let headers = table.value("proxy_protocol").and_then(|value| value.choice(&schema::PROXY_HEADERS));
        let headers = headers.map(|at| at.value).unwrap_or_default();
        let pool = table.value("pool");
        let protocol = protocol.and_then(|value| value.choice(&schema::PROTOCOLS));
        if protocol.as_ref().is_some_and(|at| at.value != Protocol::Http) {
            for value in ["forwarded", "h2", "h2c"].into_iter().filter_map(|key| table.value(key)) {
                value.fault(Fault::new("only listeners with protocol = \"http\" have it"));
            }
            if let Some(value) = table.value("trusted_proxies").filter(|_| headers == ProxyHeaders::Off) {
                value.fault(Fault::new("has no meaning here without `proxy_protocol`"));
            }
        }
        if headers != ProxyHeaders::Off && table.value("trusted_proxies").is_none() {
            let rule = "must name the proxies whose headers are believed, as `proxy_protocol` is on";
            table.required("trusted_proxies", rule);
        }
        let (bind, ranges) = split(bind.unwrap_or_default());
        let is_udp = protocol.as_ref().is_some_and(|at| at.value == Protocol::Udp);
        only_datagrams(table, protocol.as_ref().map(|at| at.value), ranges.first());
        let own = |key| table.value(key).filter(|_| is_udp);
        let replies = own("replies").and_then(|value| value.integer(1..1025)).map(|at| at.value as u16);
        let idle = own("idle").and_then(|value| value.duration(&TIMEOUTS)).map(|at| at.value);
        Self {
            name,
            span: table.span.clone(),
            bind,
            ranges,
            protocol,
            tls: table.value("tls").map(|value| entries(&value)).unwrap_or_default(),
            has_pool: pool.is_some(),
            pool: reference(pool, "pool"),
            steer: steer.map(|at| at.value).unwrap_or_default(),
            syn_cookies: syn_cookies.map(|at| at.value).unwrap_or_default(),
            trusted_proxies: table.value("trusted_proxies").map(|value| proxies(&value)).unwrap_or_default(),
            proxy_protocol: headers,
            forwarded: boolean(table, "forwarded", false),
            h2: boolean(table, "h2", true),
            h2c: boolean(table, "h2c", false),
            connections: connections.map(|at| at.value as usize),
            idle,
            replies,
        }
    }

    /// Whether it is a udp listener.
    pub(super) fn takes_datagrams(&self) -> bool {
        self.protocol.as_ref().is_some_and(|at| at.value == Protocol::Udp)
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Listener> {
        Some(Listener {
            bind: self.bind.into_iter().map(|at| at.value).collect(),
            ranges: self.ranges.into_iter().map(|at| at.value).collect(),
            protocol: self.protocol?.value,
            tls: self.tls.into_iter().map(|at| at.value).collect(),
            pool: self.pool.map(|at| at.value),
            steer: self.steer,
            syn_cookies: self.syn_cookies,
            trusted_proxies: self.trusted_proxies,
            proxy_protocol: self.proxy_protocol,
            forwarded: self.forwarded,
            h2: self.h2,
            h2c: self.h2c,
            connections: self.connections,
            idle: self.idle,
            replies: self.replies,
        })
    }
}

/// `tls`: names of entries.
fn entries(value: &Value<'_>) -> Vec<At<Arc<str>>> {
    let items = value.items("must be an array of names of [tls.NAME], such as [\"example\"]");
    let items = items.unwrap_or_default().into_iter();
    items.filter_map(|item| reference(Some(item), "[tls.NAME]")).collect()
}

fn boolean(table: &Table<'_>, key: &str, unsaid: bool) -> bool {
    table.value(key).and_then(|value| value.boolean()).unwrap_or(unsaid)
}

/// Keys that mean something for datagrams alone, or for anything but them.
fn only_datagrams(table: &Table<'_>, protocol: Option<Protocol>, range: Option<&At<BindRange>>) {
    let Some(protocol) = protocol else { return };
    if protocol != Protocol::Udp {
        for value in ["idle", "replies"].into_iter().filter_map(|key| table.value(key)) {
            value.fault(Fault::new("only listeners with protocol = \"udp\" have it"));
        }
        return;
    }
    for value in ["steer", "syn_cookies", "proxy_protocol"].into_iter().filter_map(|key| table.value(key)) {
        value.fault(Fault::new("has no meaning for datagrams; leave it out"));
    }
    if let (Some(range), Some(bind)) = (range, table.value("bind")) {
        let fault = format!("{} is a range, and datagrams are taken at single addresses only", range.value);
        bind.fault(Fault::new(fault));
    }
}

/// What can be bound, and what cannot.
fn split(items: Vec<Value<'_>>) -> (Vec<At<SocketAddr>>, Vec<At<BindRange>>) {
    let (mut bind, mut ranges) = (Vec::new(), Vec::new());
    for item in items {
        let Some(At { value, key, span }) =
            item.parsed("an address is a string with a port", address::listen)
        else {
            continue;
        };
        match value {
            address::Bind::One(value) => bind.push(At { value, key, span }),
            address::Bind::Range(value) => ranges.push(At { value, key, span }),
        }
    }
    (bind, ranges)
}

fn proxies(value: &Value<'_>) -> Vec<IpNet> {
    let rule = "must be an array of addresses and prefixes, such as [\"10.0.0.0/8\"]";
    let items = value.items_or_none(rule).unwrap_or_default();
    let nets = items.iter().filter_map(|item| item.parsed("must be a string", address::peer));
    nets.map(|at| at.value).collect()
}
