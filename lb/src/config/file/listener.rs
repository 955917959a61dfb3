//! `[listener.NAME]` and `[route.NAME]`.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use super::{
    address, pattern,
    pool::reference,
    process::TIMEOUTS,
    reader::{At, Table, Value},
    schema,
};
use crate::config::{BindRange, HostPattern, Listener, PathPattern, Protocol, Route, Steer, SynCookies};

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
        let (bind, ranges) = split(bind.unwrap_or_default());
        Self {
            name,
            span: table.span.clone(),
            bind,
            ranges,
            protocol: protocol.and_then(|value| value.choice(&schema::PROTOCOLS)),
            has_pool: pool.is_some(),
            pool: reference(pool, "pool"),
            steer: steer.map(|at| at.value).unwrap_or_default(),
            syn_cookies: syn_cookies.map(|at| at.value).unwrap_or_default(),
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

/// What was read of a route.
pub(super) struct RouteDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    pub(super) listener: Option<At<Arc<str>>>,
    pub(super) hosts: Vec<At<HostPattern>>,
    pub(super) path: Option<At<PathPattern>>,
    pub(super) pool: Option<At<Arc<str>>>,
    /// Whether host and path are all that was written, so that routes can be compared.
    pub(super) is_comparable: bool,
    timeout: Option<Duration>,
}

impl RouteDraft {
    pub(super) fn read(name: Arc<str>, table: &Table<'_>) -> Self {
        let rule = "must be an array of hosts, such as [\"api.example.com\", \"*.example.org\"]";
        let items = table.value("host").map(|value| value.items(rule));
        let is_host_read = !matches!(items, Some(None));
        let items = items.flatten().unwrap_or_default();
        let hosts: Vec<_> =
            items.iter().filter_map(|item| item.parsed("a host is a string", pattern::host)).collect();
        let path = table.value("path").map(|value| value.parsed("a path is a string", pattern::path));
        let timeout = table.value("timeout").and_then(|value| value.duration(&TIMEOUTS));
        Self {
            name,
            span: table.span.clone(),
            listener: reference(table.required("listener", "must be the name of a listener"), "listener"),
            is_comparable: is_host_read && hosts.len() == items.len() && !matches!(path, Some(None)),
            hosts,
            path: path.flatten(),
            pool: reference(table.required("pool", "must be the name of a pool"), "pool"),
            timeout: timeout.map(|at| at.value),
        }
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Route> {
        Some(Route {
            listener: self.listener?.value,
            hosts: self.hosts.into_iter().map(|at| at.value).collect(),
            path: self.path.map(|at| at.value),
            pool: self.pool?.value,
            timeout: self.timeout,
        })
    }
}
