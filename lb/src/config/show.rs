//! A [`Config`] as the JSON that means it: the schema of the file. Secrets stand in it by reference, as in the file.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    AccessLog, Backend, Config, Interface, Listener, LogStyle, NewFlows, Pool, Sources, Vip, Workers,
    file::{show_duration, show_sample},
    show_key::put,
    show_route::route,
};

impl Config {
    /// Every value that runs, defaults included; keys as in a file, each table keyed by name.
    pub fn to_json(&self) -> Value {
        let limits = &self.limits;
        let mut top = json!({
            "version": 1,
            "runtime": { "workers": workers(&self.runtime.workers) },
            "admin": {
                "socket": self.admin.socket,
                "http": self.admin.http.map_or_else(String::new, |address| address.to_string()),
            },
            "limits": {
                "connections": limits.connections,
                "connections_per_ip": limits.connections_per_ip,
                "head_timeout": show_duration(limits.head_timeout),
                "head_bytes": format!("{}B", limits.head_bytes),
                "head_fields": limits.head_fields,
                "idle_timeout": show_duration(limits.idle_timeout),
                "connect_timeout": show_duration(limits.connect_timeout),
            },
            "state": { "dir": self.state.dir },
            "vip": named(&self.vips, vip),
            "listener": named(&self.listeners, listener),
            "route": named(&self.routes, route),
            "pool": named(&self.pools, pool),
        });
        put(&mut top, "log", self.access_log.as_ref().map(access_log));
        if let Some(xdp) = &self.xdp {
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
            top["xdp"] = table;
        }
        top
    }
}

fn named<T>(tables: &BTreeMap<Arc<str>, T>, show: fn(&T) -> Value) -> Map<String, Value> {
    tables.iter().map(|(name, table)| (name.to_string(), show(table))).collect()
}

fn file_reference(path: &Path) -> String {
    format!("file:{}", path.display())
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

fn vip(vip: &Vip) -> Value {
    let mut table = json!({
        "address": vip_addresses(vip),
        "ports": vip.ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "forward": vip.forward.name(),
        "pool": vip.pool,
    });
    let translated: Vec<String> = vip.nat_source.iter().map(ToString::to_string).collect();
    put(&mut table, "nat_source", (!translated.is_empty()).then_some(translated));
    put(&mut table, "hash", Some(vip.hash));
    let source = |(prefix, pool)| json!({ "prefix": prefix, "pool": pool });
    let sources: Vec<Value> = vip.sources.iter().map(source).collect();
    put(&mut table, "sources", (!sources.is_empty()).then_some(sources));
    let quic = vip.quic.as_ref().map(|quic| {
        let keys = quic.keys.iter().map(|(config, file)| (config.to_string(), file_reference(file)));
        json!({ "keys": keys.collect::<BTreeMap<_, _>>() })
    });
    put(&mut table, "quic", quic);
    put(&mut table, "flows", vip.flows_none.then_some("none"));
    table
}

fn vip_addresses(vip: &Vip) -> Vec<String> {
    let addresses = vip.addresses.iter().map(ToString::to_string);
    addresses.chain(vip.prefixes.iter().map(ToString::to_string)).collect()
}

fn listener(listener: &Listener) -> Value {
    let mut table = json!({
        "bind": listener.spelled(),
        "protocol": listener.protocol,
        "steer": listener.steer,
        "syn_cookies": listener.syn_cookies,
    });
    put(&mut table, "pool", listener.pool.as_deref());
    let proxies: Vec<String> = listener.trusted_proxies.iter().map(ToString::to_string).collect();
    put(&mut table, "trusted_proxies", (!proxies.is_empty()).then_some(proxies));
    put(&mut table, "forwarded", listener.forwarded.then_some(true));
    table
}

fn pool(pool: &Pool) -> Value {
    let backend = |backend: &Backend| {
        let mut table = json!({ "address": backend.to_string(), "weight": backend.weight });
        put(&mut table, "server_id", backend.server_id);
        table
    };
    let mut table = json!({
        "backends": pool.backends.iter().map(backend).collect::<Vec<_>>(),
        "keepalive": {
            "idle": show_duration(pool.keepalive.idle),
            "per_worker": pool.keepalive.per_worker,
        },
    });
    put(&mut table, "balance", pool.balance);
    let health = pool.health.map(|health| {
        json!({
            "tcp": health.tcp_port.map_or_else(|| "auto".to_owned(), |port| port.to_string()),
            "every": show_duration(health.every),
            "timeout": show_duration(health.timeout),
            "fall": health.fall,
            "rise": health.rise,
        })
    });
    put(&mut table, "health", health);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const WHOLE: &str = r#"
        version = 1
        [runtime]
        workers = [0, 3]
        [xdp]
        interfaces = [
            "eth0",
            { name = "eth1", mode = "generic", gateway = "10.0.0.254" },
            { name = "eth2", gateway = "02:00:5e:00:53:fe" },
        ]
        deny = ["203.0.113.0/24", "2001:db8::/32", "file:lists/denied.txt"]
        allow = ["203.0.113.7/32"]
        outer_source = ["198.18.0.0/24", "2001:db8:9::/64"]
        spread = "on"
        secret = "file:keys/hash"
        new_flows_per_source = { rate = "50/s", burst = 70, above = "3/s" }
        [admin]
        socket = "/run/x.sock"
        http = ""
        [limits]
        connections = 7
        head_bytes = "3000B"
        idle_timeout = "90s"
        [state]
        dir = "/srv/lb"
        [log]
        access = "json"
        file = "syslog:192.0.2.9:514"
        sample = "2.5%"
        include = ["query", "referer"]
        [vip.dns]
        address = ["192.0.2.53", "2001:db8::53", "198.51.100.0/25"]
        ports = ["53/udp", "53/tcp", "8000-8100/tcp", "0/udp"]
        forward = "gue"
        pool = "dns"
        flows = "none"
        hash = "source"
        sources = [
            { prefix = "198.51.100.0/24", pool = "blue" },
            { prefix = "2001:db8:b::/48", pool = "blue" },
        ]
        quic = { keys = { 0 = "file:keys/quic-0", 6 = "file:keys/quic-6" } }
        [listener.web]
        bind = ["0.0.0.0:80", "[::]:80"]
        protocol = "http"
        steer = "hash"
        syn_cookies = "off"
        trusted_proxies = ["10.0.0.0/8", "2001:db8::7"]
        forwarded = true
        [route.api]
        listener = "web"
        host = ["API.example.com", "*.example.org"]
        path = "/v1/*"
        pool = "api"
        timeout = "1500ms"
        deadline = "1h"
        [route.rest]
        listener = "web"
        path = "/status"
        pool = "api"
        [route.much]
        listener = "web"
        path = "/u/{id:[0-9]+}/{x}/*"
        method = ["POST", "GET"]
        headers = { X-A = "1", x-b = { prefix = "2" }, X-C = { regex = "a|b" }, X-D = { present = true }, X-E = { present = false } }
        query = { Q = "1", r = { prefix = "\"" }, s = { present = true } }
        priority = 7
        pool = "api"
        rewrite = { host = "inner.example:81", path = "/{x}/{id}/*" }
        [route.much.set_headers.request]
        set = { X-Set = "1", Accept = "a, b" }
        add = { X-Add = "\u00e4" }
        remove = ["Cookie"]
        [route.much.set_headers.response]
        remove = ["Server"]
        [route.away]
        listener = "web"
        path = "/old/*"
        redirect = { status = 308, scheme = "https", host = "new.example", port = 8443, path = "/new/*", keep_query = false }
        [route.gone]
        listener = "web"
        path = "/gone"
        respond = { status = 410, body = "gone\n", content_type = "text/html", headers = { X-Why = "age" } }
        [route.empty]
        listener = "web"
        path = "/empty"
        respond = { status = 204 }
        [pool.dns]
        balance = "maglev"
        backends = [{ address = "10.0.1.53", server_id = 4095 }]
        health = { tcp = "53", every = "500ms" }
        [pool.blue]
        backends = ["10.0.1.54"]
        [pool.api]
        backends = ["10.0.0.1:80", { address = "[2001:db8::1]:80", weight = 9 }]
        health = { tcp = "auto", fall = 5 }
        keepalive = { idle = "2m", per_worker = 0 }
    "#;

    /// TOML's inline syntax: JSON's with `=` for `:`.
    fn toml_of(value: &Value) -> String {
        match value {
            Value::Object(table) => {
                let entries: Vec<_> =
                    table.iter().map(|(key, value)| format!("{key:?} = {}", toml_of(value))).collect();
                format!("{{ {} }}", entries.join(", "))
            }
            Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
            value => value.to_string(),
        }
    }

    #[test]
    fn what_is_shown_means_the_same_config() {
        show_means_the_same(WHOLE);
        show_means_the_same("version = 1\n[log]\naccess = \"text\"\nformat = 'a $$ \"$request\"'");
        let shown = parse("whole", WHOLE).unwrap().config.to_json();
        assert_eq!(shown["xdp"]["spread"], "on");
        assert_eq!(shown["listener"]["web"]["syn_cookies"], "off");
        assert_eq!(shown["xdp"]["secret"], "file:keys/hash", "a reference, no content");
    }

    fn show_means_the_same(text: &str) {
        let config = parse("whole", text).unwrap().config;
        let shown = config.to_json();
        let Value::Object(top) = &shown else { panic!("{shown}") };
        let text: String = top.iter().map(|(key, value)| format!("{key} = {}\n", toml_of(value))).collect();
        let again = parse("shown", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config;
        assert_eq!(again, config, "{text}");
    }
}
