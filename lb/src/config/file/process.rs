//! The tables about the process itself: `[runtime]`, `[xdp]`, `[admin]`, `[limits]`, `[state]`.
//!
//! Each reader gives usable values whatever it meets: what could not be read stands as its default, and the
//! problem is in the findings, so that the config as a whole is refused.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::{Range, RangeInclusive},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use lb_abi::bounds;

use super::{
    address,
    reader::{At, Fault, Table, Value},
    schema,
    units::{self, RATE_MAX},
};
use crate::config::{
    Admin, BODY_BYTES_ANY, BurstRate, Http2Limits, Interface, Limits, MemoryLimit, NewFlows, Runtime,
    Sources, State, Upgrade, Workers, Xdp,
};

/// Bounds of every time-out: shorter ones fire before a packet can cross a continent, longer ones never.
pub(super) const TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 3600);

/// Default of `admin.http`.
pub(super) const ADMIN_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// Most prefixes of a list in the config itself; a file holds as many as the maps do.
const INLINE_MAX: usize = 131_072;

/// Longest path of a unix socket, in bytes: `sun_path` of unix(7) less its NUL.
const SOCKET_PATH_MAX: usize = 107;

pub(super) fn runtime(top: &Table<'_>) -> Runtime {
    let workers = top.table("runtime", &schema::RUNTIME).and_then(|table| workers(&table.value("workers")?));
    Runtime { workers: workers.unwrap_or(Workers::Auto) }
}

fn workers(value: &Value<'_>) -> Option<Workers> {
    let rule = "must be \"auto\", a number of workers, or a list of cores";
    if value.as_str().is_some() {
        let auto = |text: &str| if text == "auto" { Ok(Workers::Auto) } else { Err(Fault::new(rule)) };
        return value.parsed(rule, auto).map(|at| at.value);
    }
    if !value.is_array() {
        return Some(Workers::Count(
            value.integer_or(rule, 1..u64::from(bounds::WORKERS_MAX) + 1)?.value as usize,
        ));
    }
    let mut cores = BTreeSet::new();
    let mut in_order = Vec::new();
    for item in value.items(rule)? {
        let core = item.integer(0..u64::from(bounds::CORES_MAX))?.value as usize;
        match cores.insert(core) {
            true => in_order.push(core),
            false => item.fault(Fault::new("this core already has a worker")),
        }
    }
    if in_order.len() > bounds::WORKERS_MAX as usize {
        value.fault(Fault::new(format!("must be at most {} cores", bounds::WORKERS_MAX)));
    }
    Some(Workers::Cores(in_order))
}

pub(super) fn xdp(top: &Table<'_>) -> Option<Xdp> {
    let table = top.table("xdp", &schema::XDP)?;
    let (mut interfaces, mut names) = (Vec::new(), HashSet::new());
    let rule = "an array of interfaces is needed, such as [\"eth0\"]";
    for item in table.required("interfaces", rule).and_then(|value| value.items(rule)).unwrap_or_default() {
        let Some(interface) = interface(&item) else { continue };
        match names.insert(interface.name.clone()) {
            true => interfaces.push(interface),
            false => item.fault(Fault::new("this interface is listed already")),
        }
    }
    let spread = table.value("spread").and_then(|value| value.choice(&schema::SPREADS));
    let secret = table.value("secret").and_then(|value| {
        value.parsed_secret("a secret is given by reference, as in \"file:secret\"", file_reference)
    });
    let new_flows =
        table.table("new_flows_per_source", &schema::NEW_FLOWS).and_then(|table| new_flows(&table));
    let list = |key| table.value(key).map(|value| sources(&value)).unwrap_or_default();
    Some(Xdp {
        interfaces,
        deny: list("deny"),
        allow: list("allow"),
        outer_source: table.value("outer_source").map(|value| outer_source(&value)).unwrap_or_default(),
        new_flows,
        spread: spread.map(|at| at.value).unwrap_or_default(),
        secret,
    })
}

/// Below this nobody floods a core that forwards ten million packets a second.
const ABOVE: u32 = 20_000;

fn new_flows(table: &Table<'_>) -> Option<NewFlows> {
    let rate = |value: Value<'_>| value.parsed(units::RATE, units::rate);
    let per_source = table.required("rate", units::RATE).and_then(rate)?.value;
    let burst = table.value("burst").and_then(|value| value.integer(1..RATE_MAX + 1));
    Some(NewFlows {
        rate: per_source,
        // Twice what a second brings, unless it is said.
        burst: burst.map_or(per_source.saturating_mul(2), |at| at.value as u32),
        above: table.value("above").and_then(rate).map_or(ABOVE, |at| at.value),
    })
}

fn interface(value: &Value<'_>) -> Option<Interface> {
    let rule = "an interface is a name, such as \"eth0\", or { name = \"eth0\", mode = \"native\" }";
    if !value.is_table() {
        return Some(Interface {
            name: value.parsed(rule, interface_name)?.value.into(),
            mode: None,
            gateway: None,
        });
    }
    let table = value.table(&schema::INTERFACE)?;
    let mode = table.value("mode").and_then(|value| value.choice(&schema::XDP_MODES));
    let name = table.required("name", "an interface needs its name")?.parsed(rule, interface_name)?;
    let rule = "must be the IP or Ethernet address of a router, such as \"10.0.0.1\"";
    let gateway = table.value("gateway").and_then(|value| value.parsed(rule, address::gateway));
    Some(Interface {
        name: name.value.into(),
        mode: mode.map(|at| at.value),
        gateway: gateway.map(|at| at.value),
    })
}

/// The kernel's own rule: `dev_valid_name`, net/core/dev.c.
fn interface_name(text: &str) -> Result<&str, Fault> {
    let is_valid = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    match is_valid {
        true => Ok(text),
        false => Err(Fault::new("an interface name has 1 to 15 bytes and no slash, colon or space")),
    }
}

/// `xdp.deny` or `xdp.allow`.
fn sources(value: &Value<'_>) -> Sources {
    let rule = "must be an array of prefixes and files, such as [\"203.0.113.0/24\", \"file:denied.txt\"]";
    let mut sources = Sources::default();
    for item in value.items_or_none(rule).unwrap_or_default() {
        let rule = "must be a string";
        if item.as_str().is_some_and(|text| text.starts_with("file:")) {
            sources.files.extend(item.parsed(rule, file_reference).map(|at| at.value));
        } else {
            sources.nets.extend(item.parsed(rule, address::prefix).map(|at| at.value));
        }
    }
    if sources.nets.len() > INLINE_MAX {
        let fault = format!(
            "must be at most {INLINE_MAX} prefixes; more belong into a file, as in \"file:denied.txt\""
        );
        value.fault(Fault::new(fault));
    }
    sources
}

fn outer_source(value: &Value<'_>) -> Vec<ipnet::IpNet> {
    let rule = "must be an array of prefixes, such as [\"198.18.0.0/24\"]";
    let mut nets: Vec<ipnet::IpNet> = Vec::new();
    for item in value.items(rule).unwrap_or_default() {
        let Some(net) = item.parsed("must be a string", address::tunnel_source) else { continue };
        match nets.iter().any(|other| other.addr().is_ipv4() == net.value.addr().is_ipv4()) {
            true => item.fault(Fault::new("there is a prefix of this family already")),
            false => nets.push(net.value),
        }
    }
    nets
}

/// `file:NAME`, NAME relative and without `..`: what it leads to is opened beneath the config's directory.
pub(super) fn file_reference(text: &str) -> Result<PathBuf, Fault> {
    let Some(name) = text.strip_prefix("file:") else {
        return Err(Fault::new("a secret is given by reference, as in \"file:secret\""));
    };
    let path = Path::new(name);
    let is_beneath = path.components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || name.contains('\0') || !is_beneath {
        return Err(Fault::new(
            "must be a file beneath the directory of this config: a relative path without \".\" and \"..\"",
        ));
    }
    Ok(path.to_owned())
}

/// `[admin]`; its HTTP address with its place, as other addresses must not be the same.
pub(super) fn admin(top: &Table<'_>) -> (Admin, Option<At<SocketAddr>>) {
    let table = top.table("admin", &schema::ADMIN);
    let value = |key| table.as_ref().and_then(|table| table.value(key));
    let socket = value("socket").and_then(|value| {
        value.parsed("must be the path of a unix socket", |text| match absolute(text)? {
            path if path.as_os_str().len() > SOCKET_PATH_MAX => {
                Err(Fault::new(format!("the path of a unix socket has at most {SOCKET_PATH_MAX} bytes")))
            }
            path => Ok(path),
        })
    });
    let rule = "must be an address with port, or \"\" for none";
    let http = value("http").map(|value| {
        value.parsed(rule, |text| if text.is_empty() { Ok(None) } else { address::bind(text).map(Some) })
    });
    let place =
        http.clone().flatten().and_then(|at| Some(At { value: at.value?, key: at.key, span: at.span }));
    let http = match http {
        Some(given) => given.and_then(|at| at.value),
        None => Some(ADMIN_HTTP),
    };
    let socket = socket.map_or_else(|| "/run/lb/admin.sock".into(), |at| at.value);
    (Admin { socket, http }, place)
}

pub(super) fn state(top: &Table<'_>) -> State {
    let table = top.table("state", &schema::STATE);
    let dir = table.and_then(|table| table.value("dir")?.parsed("must be the path of a directory", absolute));
    State { dir: dir.map_or_else(|| "/var/lib/lb".into(), |at| at.value) }
}

pub(super) fn programs_dir(top: &Table<'_>) -> Option<PathBuf> {
    let value = top.table("health", &schema::PROGRAMS)?.value("programs_dir")?;
    Some(value.parsed("must be the path of a directory", absolute)?.value)
}

/// Processes that may drain at once.
const DRAINING_MOST: u64 = 64;

pub(super) fn upgrade(top: &Table<'_>) -> Upgrade {
    let default = Upgrade::default();
    let Some(table) = top.table("upgrade", &schema::UPGRADE) else { return default };
    let timeout = table.value("drain_timeout").and_then(|value| value.duration(&TIMEOUTS));
    let most = table.value("max_draining").and_then(|value| value.integer(1..DRAINING_MOST + 1));
    Upgrade {
        drain_timeout: timeout.map_or(default.drain_timeout, |at| at.value),
        max_draining: most.map_or(default.max_draining, |at| at.value as usize),
    }
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, Fault> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(text.into()),
        false => Err(Fault::new("must be an absolute path")),
    }
}

pub(super) fn limits(top: &Table<'_>) -> Limits {
    let default = Limits::default();
    let Some(table) = top.table("limits", &schema::LIMITS) else { return default };
    let number = |key, bounds, default| {
        let read = table.value(key).and_then(|value| value.integer(bounds));
        read.map_or(default, |at| at.value as usize)
    };
    let timeout = |key, default| {
        table.value(key).and_then(|value| value.duration(&TIMEOUTS)).map_or(default, |at| at.value)
    };
    let head_bytes = table.value("head_bytes").and_then(|value| value.size(&(1 << 10..=1 << 20)));
    Limits {
        connections: number("connections", 1..10_000_001, default.connections),
        connections_per_ip: number("connections_per_ip", 1..10_000_001, default.connections_per_ip),
        head_timeout: timeout("head_timeout", default.head_timeout),
        head_bytes: head_bytes.map_or(default.head_bytes, |at| at.value as usize),
        head_fields: number("head_fields", 1..1025, default.head_fields),
        idle_timeout: timeout("idle_timeout", default.idle_timeout),
        connect_timeout: timeout("connect_timeout", default.connect_timeout),
        body_bytes: table
            .value("body_bytes")
            .and_then(|value| body_bytes(&value))
            .unwrap_or(default.body_bytes),
        memory: table.value("memory").and_then(|value| memory(&value)).unwrap_or(default.memory),
        rate: table.table("rate", &schema::RATE).and_then(|table| burst_rate(&table)),
        http2: table.table("h2", &schema::HTTP2).map_or(default.http2, |table| http2(&table)),
    }
}

fn http2(table: &Table<'_>) -> Http2Limits {
    let number = |key, bounds: Range<u64>, default| {
        let read = table.value(key).and_then(|value| value.integer(bounds));
        read.map_or(default, |at| at.value as u32)
    };
    let frames = |key, default| number(key, 1..1_000_001, default);
    let default = Http2Limits::default();
    Http2Limits {
        streams: number("streams", 1..1_001, default.streams),
        resets: frames("resets", default.resets),
        resets_in_all: frames("resets_in_all", default.resets_in_all),
        resets_emitted: frames("resets_emitted", default.resets_emitted),
        pings: frames("pings", default.pings),
        settings: frames("settings", default.settings),
        empty_data: frames("empty_data", default.empty_data),
        heads: frames("heads", default.heads),
        continuations: frames("continuations", default.continuations),
        window_updates: frames("window_updates", default.window_updates),
        priorities: frames("priorities", default.priorities),
        unknown: frames("unknown", default.unknown),
    }
}

fn memory(value: &Value<'_>) -> Option<MemoryLimit> {
    match value.as_str() {
        Some("auto") => Some(MemoryLimit::Auto),
        Some("none") => Some(MemoryLimit::Unlimited),
        _ => value.size(&(16 << 20..=1 << 50)).map(|at| MemoryLimit::Bytes(at.value)),
    }
}

/// `limits.body_bytes` or a route's.
pub(super) fn body_bytes(value: &Value<'_>) -> Option<u64> {
    if value.as_str() == Some("none") {
        return Some(BODY_BYTES_ANY);
    }
    value.size(&(0..=1 << 50)).map(|at| at.value)
}

/// `limits.rate`, or that part of a route's `rate_limit`.
pub(super) fn burst_rate(table: &Table<'_>) -> Option<BurstRate> {
    let rule = "must be a rate, such as \"100/s\"";
    let rate = table.required("rate", rule)?.parsed(rule, units::per_time)?.value;
    let burst = table.value("burst").and_then(|value| value.integer(1..1_000_001));
    // What a second brings, unless it is said.
    let second = rate.number / rate.seconds;
    Some(BurstRate { rate, burst: burst.map_or(second.max(1), |at| at.value as u32) })
}

impl Value<'_> {
    /// A duration within bounds.
    pub(super) fn duration(&self, bounds: &RangeInclusive<Duration>) -> Option<At<Duration>> {
        self.parsed(units::DURATION, |text| units::duration(text, bounds))
    }

    /// A size in bytes within bounds.
    fn size(&self, bounds: &RangeInclusive<u64>) -> Option<At<u64>> {
        self.parsed(units::SIZE, |text| units::size(text, bounds))
    }
}
