//! A [`Config`] as the JSON that means it: the schema of the file. Secrets stand in it by reference, as in the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value, json};

use crate::model::BackendName;

use super::{
    Backend, BackendProtocol, Choosing, Config, Key, Listener, NamedBackends, Pool, Protocol, ProxyHeaders,
    Queue, Vip,
    file::show_duration,
    show_health::{health, outlier as show_outlier},
    show_key::{file_reference, put},
    show_process::PROCESS_TABLES,
    show_route::route,
    show_tls::{pool_tls, tls},
};

impl Config {
    /// Every value that runs, defaults included; keys as in a file, each table keyed by name.
    pub fn to_json(&self) -> Value {
        self.shown(named(&self.routes, |shown| route(shown)))
    }

    /// The same with these routes only.
    pub fn to_json_with(&self, routes: &BTreeSet<Arc<str>>) -> Value {
        let routes = routes.iter().filter_map(|name| self.routes.get_key_value(&**name));
        self.shown(named(routes, |shown| route(shown)))
    }

    /// These routes and nothing else.
    pub fn routes_to_json(&self, routes: &BTreeSet<Arc<str>>) -> Value {
        let routes = routes.iter().filter_map(|name| self.routes.get_key_value(&**name));
        json!({ "route": named(routes, |shown| route(shown)) })
    }

    /// One entry of a table, without the rest of it.
    pub fn entry_to_json(&self, table: &str, name: &str) -> Option<Value> {
        match table {
            "vip" => self.vips.get(name).map(vip),
            "listener" => self.listeners.get(name).map(listener),
            "route" => self.routes.get(name).map(|shown| route(shown)),
            "pool" => self.pools.get(name).map(pool),
            // Tables of the process, which are small.
            _ => self.to_json_with(&BTreeSet::new()).get(table)?.get(name).cloned(),
        }
    }

    fn shown(&self, routes: Map<String, Value>) -> Value {
        let mut top = json!({
            "version": 1,
            "vip": named(&self.vips, vip),
            "listener": named(&self.listeners, listener),
            "route": routes,
            "tls": named(&self.tls, tls),
            "pool": named(&self.pools, pool),
        });
        for (table, show, _) in PROCESS_TABLES {
            put(&mut top, table, show(self));
        }
        top
    }
}

fn named<'c, T: 'c>(
    tables: impl IntoIterator<Item = (&'c Arc<str>, &'c T)>,
    show: impl Fn(&T) -> Value,
) -> Map<String, Value> {
    tables.into_iter().map(|(name, table)| (name.to_string(), show(table))).collect()
}

pub(super) fn vip(vip: &Vip) -> Value {
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

pub(super) fn listener(listener: &Listener) -> Value {
    let mut table = json!({ "bind": listener.spelled(), "protocol": listener.protocol });
    if listener.protocol != Protocol::Udp {
        put(&mut table, "steer", Some(listener.steer));
        put(&mut table, "syn_cookies", Some(listener.syn_cookies));
    }
    put(&mut table, "tls", (!listener.tls.is_empty()).then_some(&listener.tls));
    put(&mut table, "idle", listener.idle.map(show_duration));
    put(&mut table, "replies", listener.replies);
    put(&mut table, "pool", listener.pool.as_deref());
    let proxies: Vec<String> = listener.trusted_proxies.iter().map(ToString::to_string).collect();
    put(&mut table, "trusted_proxies", (!proxies.is_empty()).then_some(proxies));
    let headers = Some(listener.proxy_protocol).filter(|headers| *headers != ProxyHeaders::Off);
    put(&mut table, "proxy_protocol", headers);
    put(&mut table, "forwarded", listener.forwarded.then_some(true));
    put(&mut table, "h2", (!listener.h2).then_some(false));
    put(&mut table, "h2c", listener.h2c.then_some(true));
    put(&mut table, "connections", listener.connections);
    table
}

pub(super) fn pool(pool: &Pool) -> Value {
    let backend = |backend: &Backend| {
        let mut table = json!({ "address": backend.to_string(), "weight": backend.weight });
        put(&mut table, "server_id", backend.server_id);
        put(&mut table, "backup", backend.backup.then_some(true));
        put(&mut table, "max_connections", backend.max_connections);
        table
    };
    let named = |NamedBackends { name, weight, backup, max_connections }: &NamedBackends| {
        let mut table = json!({ "address": name.to_string() });
        put(&mut table, "weight", matches!(name, BackendName::Host(..)).then_some(weight));
        put(&mut table, "backup", backup.then_some(true));
        put(&mut table, "max_connections", *max_connections);
        table
    };
    let backends = pool.backends.iter().map(backend).chain(pool.names.iter().map(named));
    let mut table = json!({ "backends": backends.collect::<Vec<_>>() });
    // Beside the other it may not stand, and means nothing.
    let keepalive = json!({
        "idle": show_duration(pool.keepalive.idle),
        "per_worker": pool.keepalive.per_worker,
    });
    put(&mut table, "keepalive", pool.proxy_protocol.is_none().then_some(keepalive));
    put(&mut table, "proxy_protocol", pool.proxy_protocol);
    put(&mut table, "protocol", (pool.protocol != BackendProtocol::Http1).then_some(pool.protocol));
    put(&mut table, "balance", pool.balance);
    let Choosing { key, slow_start, max_connections, queue, retries_max, sticky, outlier, panic_percent } =
        &pool.choosing;
    put(&mut table, "outlier", outlier.as_ref().map(show_outlier));
    put(&mut table, "panic", panic_percent.map(|percent| format!("{percent}%")));
    put(&mut table, "max_connections", *max_connections);
    let Queue { length, timeout } = *queue;
    let shown = || json!({ "length": length, "timeout": show_duration(timeout) });
    let sticky = sticky.as_ref().map(|sticky| {
        let mut table = json!({ "cookie": sticky.cookie });
        put(&mut table, "secret", sticky.secret.as_deref().map(file_reference));
        table
    });
    put(&mut table, "breaker", retries_max.map(|retries| json!({ "retries": retries })));
    put(&mut table, "sticky", sticky);
    put(&mut table, "queue", (*queue != Queue::default()).then(shown));
    put(&mut table, "key", (*key != Key::Address).then(|| key.to_string()));
    put(&mut table, "slow_start", slow_start.map(show_duration));
    put(&mut table, "tls", pool.tls.as_ref().map(pool_tls));
    put(&mut table, "health", pool.health.as_ref().map(health));
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{parse, read_json};

    /// A config with every key that there is.
    pub(in crate::config) const WHOLE: &str = r#"
        version = 1
        [runtime]
        workers = [0, 3]
        [upgrade]
        drain_timeout = "90s"
        max_draining = 1
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
        body_bytes = "none"
        rate = { rate = "5/m" }
        memory = "3GiB"
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
        tls = ["shop", "rest"]
        steer = "hash"
        syn_cookies = "off"
        trusted_proxies = ["10.0.0.0/8", "2001:db8::7"]
        forwarded = true
        connections = 500
        [tls.shop]
        certificate = "certs/shop.pem"
        key = "file:certs/shop.key"
        ocsp = "file:certs/shop.ocsp"
        profile = "modern"
        client_auth = { ca = "file:clients.pem", mode = "required", crl = ["file:gone.pem", "file:gone.der"], headers = { X-Client = "subject", Client-Cert = "certificate" } }
        tickets = "file:keys/tickets"
        [tls.rest]
        certificate = ["certs/rsa.pem", "certs/ec.pem"]
        key = ["certs/rsa.key", "certs/ec.key"]
        ocsp = ["file:rsa.ocsp", "fetch"]
        names = ["A.example", "*.a.example"]
        default = true
        profile = "compatible"
        client_auth = { ca = "file:clients.pem", mode = "optional" }
        [route.api]
        listener = "web"
        host = ["API.example.com", "*.example.org"]
        path = "/v1/*"
        pool = "api"
        timeout = "1500ms"
        deadline = "1h"
        idle = "2h"
        upgrade = ["websocket", "chat/2"]
        body_bytes = "3MiB"
        rate_limit = { rate = "10/h", burst = 3, key = "header:X-Key" }
        retry = { on = ["connect", "503"], attempts = 3, budget = "2.5%" }
        [route.rest]
        listener = "web"
        path = "/status"
        pool = "hashed"
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
        [pool.hashed]
        balance = "maglev"
        key = "header:X-Tenant"
        backends = ["10.0.0.3:80", { address = "10.0.0.4:80", backup = true, max_connections = 3 }]
        max_connections = 90
        sticky = { cookie = "lb", secret = "file:keys/sticky" }
        queue = { length = 7, timeout = "2s" }
        backup = ["10.0.0.5:80"]
        slow_start = "30s"
        breaker = { retries = 3 }
        outlier = { consecutive_errors = 7, error_ratio = "40%", latency = "2.5x", requests = 9, window = "20s", ejection = "1s", ejection_max = "5s", max_ejected = "25%" }
        panic = "30%"
        [listener.names]
        bind = ["0.0.0.0:53", "[::]:53"]
        protocol = "udp"
        pool = "names"
        idle = "5s"
        replies = 1
        [pool.names]
        backends = ["10.0.0.1:53"]
        health = { http = "/", body = { regex = "o.k" } }
        [listener.relayed]
        bind = ["0.0.0.0:81"]
        protocol = "tcp"
        pool = "told"
        trusted_proxies = ["10.0.0.0/8"]
        proxy_protocol = "require"
        [route.named]
        listener = "relayed"
        sni = ["db.example.com", "*.Example.org"]
        pool = "told"
        [pool.told]
        backends = ["10.0.0.1:81", "Api.internal:80", { address = "srv:_db._tcp.internal", max_connections = 4 }]
        health = { http = "/healthz?a=1", port = 8081, method = "HEAD", status = "200,301-302", host = "a.example", headers = { X-B = "2", X-A = "1" }, jitter = "200ms", recheck = "1s" }
        proxy_protocol = "v2"
        [dns]
        servers = ["10.0.0.53", "[2001:db8::53]:5353"]
        families = ["ipv6"]
        ttl_max = "30s"
        hold = "1s"
        [pool.anyone]
        backends = ["10.0.0.1:443"]
        tls = { verify = false }
        [pool.host]
        backends = ["10.0.0.1:443"]
        tls = {}
        [pool.local]
        backends = ["unix:/run/app.sock"]
        [pool.blue]
        backends = ["10.0.1.54"]
        health = { udp = "53", send = "hex:0001", expect = "base64:AAE=" }
        [pool.api]
        backends = ["10.0.0.1:80", { address = "[2001:db8::1]:80", weight = 9 }]
        health = { tcp = "auto", fall = 5 }
        keepalive = { idle = "2m", per_worker = 0 }
        tls = { ca = "file:inner.pem", sni = "Inner.example", certificate = "us.pem", key = "us.key", alpn = ["http/1.1"] }
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
    fn an_entry_is_shown_as_in_the_whole() {
        let config = parse("whole", WHOLE).unwrap().config;
        let whole = config.to_json();
        for table in ["vip", "listener", "route", "pool"] {
            let entries = whole[table].as_object().unwrap();
            assert!(!entries.is_empty(), "{table}");
            for (name, entry) in entries {
                assert_eq!(config.entry_to_json(table, name).as_ref(), Some(entry), "{table}.{name}");
            }
            assert_eq!(config.entry_to_json(table, "nobody"), None);
        }
        assert_eq!(config.entry_to_json("limits", "body_bytes"), Some(whole["limits"]["body_bytes"].clone()));
        assert_eq!(config.entry_to_json("nothing", "body_bytes"), None);
    }

    #[test]
    fn what_is_shown_means_the_same_config() {
        show_means_the_same(WHOLE);
        for health in [
            "http = \"/\", body = \"ok\"",
            "tls = \"auto\"",
            "tls = \"8443\", sni = \"a.example\", verify = true",
            "https = \"/\", host = \"a.example\", ca = \"file:tls/ca.pem\"",
            "grpc = \"\"",
            "grpcs = \"shop.Orders\", port = 50051, host = \"a.example\", verify = true",
            "redis = \"auto\"",
            "postgres = \"5433\"",
            "mysql = \"auto\"",
            "udp = \"auto\"",
            "exec = \"a/b.sh\", port = 7",
        ] {
            show_means_the_same(&format!(
                "version = 1\n[health]\nprograms_dir = \"/etc/lb/checks\"\n[pool.a]\nbackends = [\"10.0.0.1:80\"]\nhealth = {{ {health} }}"
            ));
        }
        show_means_the_same("version = 1\n[log]\naccess = \"text\"\nformat = 'a $$ \"$request\"'");
        let shown = parse("whole", WHOLE).unwrap().config.to_json();
        assert_eq!(shown["xdp"]["spread"], "on");
        assert_eq!(shown["listener"]["web"]["syn_cookies"], "off");
        assert_eq!(shown["xdp"]["secret"], "file:keys/hash", "a reference, no content");
    }

    fn show_means_the_same(text: &str) {
        let config = parse("whole", text).unwrap().config;
        let shown = config.to_json();
        let read = read_json("shown", &shown).unwrap_or_else(|problems| panic!("{problems}\n{shown:#}"));
        assert_eq!(read.config, config, "{shown:#}");
        let Value::Object(top) = &shown else { panic!("{shown}") };
        let text: String = top.iter().map(|(key, value)| format!("{key} = {}\n", toml_of(value))).collect();
        let again = parse("shown", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config;
        assert_eq!(again, config, "{text}");
    }
}
