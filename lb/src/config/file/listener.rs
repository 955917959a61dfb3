//! `[listener.NAME]`.

use std::{net::SocketAddr, ops::Range, sync::Arc};

use ipnet::IpNet;

use super::{
    address,
    pool::reference,
    reader::{At, Fault, Table, Value},
    schema,
};
use crate::config::{BindRange, Listener, Protocol, Steer, SynCookies};

/// What was read of a listener.
pub(super) struct ListenerDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    pub(super) bind: Vec<At<SocketAddr>>,
    pub(super) ranges: Vec<At<BindRange>>,
    pub(super) protocol: Option<At<Protocol>>,
    pub(super) pool: Option<At<Arc<str>>>,
    /// Whether there is a key `pool`, readable or not.
    pub(super) has_pool: bool,
    steer: Steer,
    syn_cookies: SynCookies,
    trusted_proxies: Vec<IpNet>,
    forwarded: bool,
}

impl ListenerDraft {
    pub(super) fn read(name: Arc<str>, table: &Table<'_>) -> Self {
        let rule = "must be an array of addresses with ports, such as [\"0.0.0.0:80\", \"[::]:80\"]";
        let bind = table.required("bind", rule).and_then(|value| value.items(rule));
        let protocol = table.required("protocol", "must be \"http\" or \"tcp\"");
        let steer = table.value("steer").and_then(|value| value.choice(&schema::STEERS));
        let syn_cookies = table.value("syn_cookies").and_then(|value| value.choice(&schema::SYN_COOKIES));
        // Read for its refusals: "off" is all there is.
        if let Some(value) = table.value("proxy_protocol") {
            value.choice(&schema::PROXY_PROTOCOLS);
        }
        let pool = table.value("pool");
        let protocol = protocol.and_then(|value| value.choice(&schema::PROTOCOLS));
        if protocol.as_ref().is_some_and(|at| at.value != Protocol::Http) {
            for value in ["trusted_proxies", "forwarded"].into_iter().filter_map(|key| table.value(key)) {
                value.fault(Fault::new("only listeners with protocol = \"http\" have it"));
            }
        }
        let (bind, ranges) = split(bind.unwrap_or_default());
        Self {
            name,
            span: table.span.clone(),
            bind,
            ranges,
            protocol,
            has_pool: pool.is_some(),
            pool: reference(pool, "pool"),
            steer: steer.map(|at| at.value).unwrap_or_default(),
            syn_cookies: syn_cookies.map(|at| at.value).unwrap_or_default(),
            trusted_proxies: table.value("trusted_proxies").map(|value| proxies(&value)).unwrap_or_default(),
            forwarded: table.value("forwarded").and_then(|value| value.boolean()).unwrap_or(false),
        }
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Listener> {
        Some(Listener {
            bind: self.bind.into_iter().map(|at| at.value).collect(),
            ranges: self.ranges.into_iter().map(|at| at.value).collect(),
            protocol: self.protocol?.value,
            pool: self.pool.map(|at| at.value),
            steer: self.steer,
            syn_cookies: self.syn_cookies,
            trusted_proxies: self.trusted_proxies,
            forwarded: self.forwarded,
        })
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
