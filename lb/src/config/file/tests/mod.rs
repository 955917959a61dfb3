//! The whole reader: what it says about every kind of mistake, and where.

use std::{net::SocketAddr, time::Duration};

mod choosing;
mod datagrams;
mod documents;
mod edited;
mod hostile;
mod json_schema;
mod log;
mod named;
mod nat;
mod pools;
mod proxy_protocol;
mod readme;
mod robust;
mod routes;
mod rules;
mod sni;
mod tls;

use super::*;
use crate::config::*;

/// A config of everything that is supported; the README-style example of the design, cut to it.
const EXAMPLE: &str = r#"
version = 1

[runtime]
workers = "auto"

[xdp]
interfaces = ["eth0", { name = "eth1", mode = "generic" }]
deny = ["203.0.113.0/24", "2001:db8:dead::/48"]
secret = "file:secrets/hash"

[admin]
socket = "/run/lb/admin.sock"
http = "127.0.0.1:9900"

[state]
dir = "/var/lib/lb"

[limits]
connections = 200_000
connections_per_ip = 1024
head_timeout = "10s"
head_bytes = "32KiB"
head_fields = 100
idle_timeout = "60s"
connect_timeout = "250ms"

[vip.dns]
address = ["192.0.2.53", "2001:db8::53"]
ports = ["53/udp", "53/tcp"]
forward = "ipip"
pool = "dns"
flows = "none"

[listener.web]
bind = ["0.0.0.0:443", "[::]:443"]
protocol = "http"
proxy_protocol = "off"
pool = "api"

[listener.db]
bind = ["0.0.0.0:5432"]
protocol = "tcp"
pool = "db"
steer = "core"

[route.api-v1]
listener = "web"
host = ["API.example.com", "*.example.org"]
path = "/v1/*"
pool = "api"
timeout = "30s"

[pool.api]
balance = "round-robin"
backends = ["10.0.0.11:8080", { address = "[2001:db8::1]:8080", weight = 2 }]
health = { tcp = "auto", every = "5s", timeout = "500ms", fall = 5, rise = 1 }
keepalive = { idle = "30s", per_worker = 8 }

[pool.db]
backends = ["10.0.0.21:5432"]

[pool.dns]
balance = "maglev"
backends = ["10.0.1.53", "10.0.1.54:53"]
health = { tcp = "53" }
"#;

fn problems(text: &str) -> Vec<String> {
    let problems = match parse("edge.toml", text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    documents::says_the_same(text, &problems);
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_is_read_as_written() {
    let loaded = parse("edge.toml", EXAMPLE).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let Config {
        runtime,
        xdp,
        admin,
        limits,
        state,
        programs_dir,
        upgrade,
        dns: names,
        access_log,
        vips,
        listeners,
        routes,
        tls,
        pools,
    } = loaded.config;
    assert_eq!(runtime.workers, Workers::Auto);
    let xdp = xdp.unwrap();
    assert_eq!(xdp.interfaces[0], Interface { name: "eth0".into(), mode: None, gateway: None });
    let mode = Some(XdpMode::Generic);
    assert_eq!(xdp.interfaces[1], Interface { name: "eth1".into(), mode, gateway: None });
    assert_eq!(xdp.deny.nets, ["203.0.113.0/24".parse().unwrap(), "2001:db8:dead::/48".parse().unwrap()]);
    assert_eq!(xdp.secret.as_deref(), Some(Path::new("secrets/hash")));
    assert_eq!(admin.socket, Path::new("/run/lb/admin.sock"));
    assert_eq!(admin.http, Some("127.0.0.1:9900".parse::<SocketAddr>().unwrap()));
    assert_eq!(limits, Limits { connect_timeout: Duration::from_millis(250), ..Limits::default() });
    assert_eq!(state.dir, Path::new("/var/lib/lb"));
    assert_eq!((access_log, programs_dir, names), (None, None, Dns::default()));
    assert_eq!(upgrade, Upgrade::default());
    assert!(tls.is_empty());
    let dns = &vips["dns"];
    assert_eq!(dns.addresses.len(), 2);
    assert_eq!(dns.ports[0], VipPort::one(53, Transport::Udp));
    assert_eq!((dns.forward, &*dns.pool, dns.flows_none), (Forward::Ipip, "dns", true));
    assert_eq!(listeners["web"].bind, ["0.0.0.0:443".parse().unwrap(), "[::]:443".parse().unwrap()]);
    assert_eq!((listeners["web"].protocol, listeners["web"].steer), (Protocol::Http, Steer::Auto));
    assert_eq!((listeners["db"].protocol, listeners["db"].steer), (Protocol::Tcp, Steer::Core));
    assert_eq!(listeners["web"].syn_cookies, SynCookies::Auto);
    assert_eq!(listeners["db"].pool.as_deref(), Some("db"));
    let route = &routes["api-v1"];
    let hosts = [HostPattern::Exact("api.example.com".into()), HostPattern::Wildcard(".example.org".into())];
    assert_eq!(route.hosts, hosts);
    assert_eq!(route.path, Some(PathPattern::Prefix("/v1/".into())));
    assert_eq!((&*route.listener, route.timeout), ("web", Some(Duration::from_secs(30))));
    assert_eq!(route.action.pool().map(|pool| &**pool), Some("api"));
    assert_eq!(pools["api"].balance, Some(Balance::RoundRobin));
    assert_eq!(pools["api"].backends[1].to_string(), "[2001:db8::1]:8080");
    assert_eq!(pools["api"].backends[1].weight, 2);
    let every = Duration::from_secs(5);
    let health = Health {
        kind: CheckKind::Tcp,
        port: None,
        every,
        recheck: None,
        jitter: Duration::ZERO,
        timeout: Duration::from_millis(500),
        fall: 5,
        rise: 1,
    };
    assert_eq!(pools["api"].health, Some(health.clone()));
    assert_eq!(pools["api"].keepalive, Keepalive { idle: Duration::from_secs(30), per_worker: 8 });
    let (every, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    assert_eq!(
        pools["dns"].health,
        Some(Health { port: Some(53), every, timeout, fall: 3, rise: 2, ..health })
    );
    assert_eq!(pools["dns"].backends.iter().map(|b| b.port()).collect::<Vec<_>>(), [None, Some(53)]);
    assert_eq!(pools["db"].health, None);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = parse("f", "version = 1\n[admin]\nhttp = \"\"").unwrap().config;
    assert_eq!(config.admin, Admin { socket: "/run/lb/admin.sock".into(), http: None });
    let config = parse("f", "version = 1").unwrap().config;
    assert_eq!(config.admin.http, Some(process::ADMIN_HTTP));
    assert_eq!((config.limits, config.xdp), (Limits::default(), None));
    assert_eq!(config.state.dir, Path::new("/var/lib/lb"));
}

#[test]
fn five_mistakes_are_five_problems() {
    let text = EXAMPLE
        .replace("forward = \"ipip\"", "forwrd = \"ipip\"\nforward = \"ippi\"")
        .replace("idle_timeout = \"60s\"", "idle_timeout = \"60\"")
        .replace("protocol = \"tcp\"\npool = \"db\"", "protocol = \"tcp\"\npool = \"dbb\"")
        .replace("path = \"/v1/*\"", "path = \"v1\"");
    assert_eq!(
        problems(&text),
        [
            "edge.toml:25:16: limits.idle_timeout = \"60\": a duration needs a unit, such as \"60s\" or \"5m\"",
            "edge.toml:31:1: vip.dns.forwrd: unknown key; did you mean `forward`?",
            "edge.toml:32:11: vip.dns.forward = \"ippi\": must be one of \"ipip\", \"gue\", \"l2dsr\", \"nat\"; did you mean `ipip`?",
            "edge.toml:45:8: listener.db.pool = \"dbb\": there is no pool of this name; did you mean `db`?",
            "edge.toml:51:8: route.api-v1.path = \"v1\": must begin with \"/\"",
        ]
    );
}

#[test]
fn budgets_of_http2() {
    let loaded =
        parse("edge.toml", "version = 1\n[limits.h2]\nstreams = 7\nresets_in_all = 50_000\n").unwrap();
    let expected = Http2Limits { streams: 7, resets_in_all: 50_000, ..Http2Limits::default() };
    assert_eq!(loaded.config.limits.http2, expected);
    for (line, said) in [
        ("streams = 0", "limits.h2.streams"),
        ("streams = 1001", "limits.h2.streams"),
        ("pings = -1", "limits.h2.pings"),
        ("pongs = 1", "limits.h2.pongs"),
    ] {
        let found = problems(&format!("version = 1\n[limits.h2]\n{line}\n"));
        assert!(matches!(&*found, [one] if one.contains(said)), "{line}: {found:?}");
    }
}
