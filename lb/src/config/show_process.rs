//! What a [`Config`] says of the process, as the JSON that means it: each table that there is once.

use serde_json::{Value, json};

use super::{
    AccessLog, Config, Dns, Http2Limits, Interface, Limits, LogStyle, NewFlows, Sources, Upgrade, Workers,
    Xdp,
    file::{show_duration, show_sample},
    show_key::{file_reference, put},
    show_route::{show_body_bytes, show_memory, show_rate},
};

type Show = fn(&Config) -> Option<Value>;
type Same = fn(&Config, &Config) -> bool;

/// Name of each table; what it shows, where it is there; whether it is the same in two configs.
pub(super) const PROCESS_TABLES: [(&str, Show, Same); 9] = [
    ("admin", |config| Some(admin(config)), |a, b| a.admin == b.admin),
    ("dns", |config| Some(dns(&config.dns)), |a, b| a.dns == b.dns),
    ("health", programs, |a, b| a.programs_dir == b.programs_dir),
    ("limits", |config| Some(limits(&config.limits)), |a, b| a.limits == b.limits),
    ("log", |config| config.access_log.as_ref().map(access_log), |a, b| a.access_log == b.access_log),
    ("runtime", runtime, |a, b| a.runtime == b.runtime),
    ("state", |config| Some(json!({ "dir": config.state.dir })), |a, b| a.state == b.state),
    ("upgrade", upgrade, |a, b| a.upgrade == b.upgrade),
    ("xdp", |config| config.xdp.as_ref().map(xdp), |a, b| a.xdp == b.xdp),
];

fn admin(config: &Config) -> Value {
    let http = config.admin.http.map_or_else(String::new, |address| address.to_string());
    json!({ "socket": config.admin.socket, "http": http })
}

fn programs(config: &Config) -> Option<Value> {
    config.programs_dir.as_ref().map(|dir| json!({ "programs_dir": dir }))
}

fn upgrade(config: &Config) -> Option<Value> {
    let Upgrade { drain_timeout, max_draining } = config.upgrade;
    Some(json!({ "drain_timeout": show_duration(drain_timeout), "max_draining": max_draining }))
}

fn runtime(config: &Config) -> Option<Value> {
    Some(json!({ "workers": workers(&config.runtime.workers) }))
}

fn limits(limits: &Limits) -> Value {
    let mut table = json!({
        "connections": limits.connections,
        "connections_per_ip": limits.connections_per_ip,
        "head_timeout": show_duration(limits.head_timeout),
        "head_bytes": format!("{}B", limits.head_bytes),
        "head_fields": limits.head_fields,
        "idle_timeout": show_duration(limits.idle_timeout),
        "connect_timeout": show_duration(limits.connect_timeout),
        "body_bytes": show_body_bytes(limits.body_bytes),
        "memory": show_memory(limits.memory),
        "h2": http2(&limits.http2),
    });
    put(&mut table, "rate", limits.rate.map(show_rate));
    table
}

fn http2(limits: &Http2Limits) -> Value {
    json!({
        "streams": limits.streams,
        "resets": limits.resets,
        "resets_in_all": limits.resets_in_all,
        "resets_emitted": limits.resets_emitted,
        "pings": limits.pings,
        "settings": limits.settings,
        "empty_data": limits.empty_data,
        "heads": limits.heads,
        "continuations": limits.continuations,
        "window_updates": limits.window_updates,
        "priorities": limits.priorities,
        "unknown": limits.unknown,
    })
}

fn xdp(xdp: &Xdp) -> Value {
    let mut table = json!({
        "interfaces": xdp.interfaces.iter().map(interface).collect::<Vec<_>>(),
        "deny": sources(&xdp.deny),
        "allow": sources(&xdp.allow),
        "spread": xdp.spread,
    });
    put(&mut table, "outer_source", (!xdp.outer_source.is_empty()).then_some(&xdp.outer_source));
    let new_flows = xdp.new_flows.map(|NewFlows { rate, burst, above }| {
        json!({ "rate": format!("{rate}/s"), "burst": burst, "above": format!("{above}/s") })
    });
    put(&mut table, "new_flows_per_source", new_flows);
    put(&mut table, "secret", xdp.secret.as_deref().map(file_reference));
    table
}

fn dns(dns: &Dns) -> Value {
    let families = [(dns.families.v4, "ipv4"), (dns.families.v6, "ipv6")];
    let mut table = json!({
        "families": families.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| name).collect::<Vec<_>>(),
        "timeout": show_duration(dns.timeout),
        "attempts": dns.attempts,
        "ttl_min": show_duration(dns.ttl_min),
        "ttl_max": show_duration(dns.ttl_max),
        "hold": show_duration(dns.hold),
    });
    put(&mut table, "servers", (!dns.servers.is_empty()).then_some(&dns.servers));
    table
}

fn workers(workers: &Workers) -> Value {
    match workers {
        Workers::Auto => json!("auto"),
        Workers::Count(count) => json!(count),
        Workers::Cores(cores) => json!(cores),
    }
}

fn access_log(log: &AccessLog) -> Value {
    let mut table = json!({ "file": log.target.to_string(), "sample": show_sample(log.sample_ppm) });
    match &log.style {
        LogStyle::Json(include) => {
            let extras =
                [("query", include.query), ("user_agent", include.user_agent), ("referer", include.referer)];
            table["access"] = json!("json");
            table["include"] = extras.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
        }
        LogStyle::Text(format) => {
            table["access"] = json!("text");
            table["format"] = json!(format.text);
        }
    }
    table
}

fn sources(sources: &Sources) -> Value {
    let nets = sources.nets.iter().map(ToString::to_string);
    nets.chain(sources.files.iter().map(|path| format!("file:{}", path.display()))).collect()
}

fn interface(interface: &Interface) -> Value {
    let mut table = json!({ "name": interface.name });
    put(&mut table, "mode", interface.mode);
    put(&mut table, "gateway", interface.gateway.map(|gateway| gateway.to_string()));
    table
}
