//! One row per rule: the example with one thing changed, and the one problem it makes.

use super::{EXAMPLE, problems};

/// Replaces `old` in the example by `new` and expects exactly one problem, where `new` has its `^` (which is
/// taken out).
#[track_caller]
pub(super) fn one_problem(old: &str, new: &str, expected: &str) {
    assert!(EXAMPLE.contains(old), "the example has no {old:?}");
    let marked = EXAMPLE.replacen(old, new, 1);
    let offset = marked.find('^').unwrap_or_else(|| panic!("no mark in {new:?}"));
    let text = marked.replacen('^', "", 1);
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    assert_eq!(problems(&text), [format!("edge.toml:{line}:{column}: {expected}")], "{new:?}");
}

#[track_caller]
pub(super) fn each(rows: &[(&str, &str, &str)]) {
    for (old, new, expected) in rows {
        one_problem(old, new, expected);
    }
}

#[test]
fn process_tables() {
    each(&[
        ("version = 1\n", "version = ^2\n", "version = 2: this build reads version 1 only"),
        ("version = 1\n", "version = ^\"1\"\n", "version = \"1\": must be a whole number; this is a string"),
        ("[runtime]", "[^runtimes]", "runtimes: unknown key; did you mean `runtime`?"),
        (
            "\"auto\"",
            "^\"automatic\"",
            "runtime.workers = \"automatic\": must be \"auto\", a number of workers, or a list of cores",
        ),
        ("\"auto\"", "^0", "runtime.workers = 0: must be a whole number from 1 to 256"),
        (
            "\"auto\"",
            "^true",
            "runtime.workers = true: must be \"auto\", a number of workers, or a list of cores; this is a boolean",
        ),
        ("\"auto\"", "[0, 1, ^0]", "runtime.workers[2] = 0: this core already has a worker"),
        ("\"auto\"", "[^-1]", "runtime.workers[0] = -1: must be a whole number from 0 to 1023"),
        (
            "[\"eth0\", {",
            "[^\"sixteen-bytes-xx\", {",
            "xdp.interfaces[0] = \"sixteen-bytes-xx\": an interface name has 1 to 15 bytes and no slash, colon or space",
        ),
        (
            "[\"eth0\", {",
            "[\"eth1\", ^{",
            "xdp.interfaces[1] = { name = \"eth1\", mode = \"generic\" }: this interface is listed already",
        ),
        (
            "mode = \"generic\"",
            "mode = ^\"native \"",
            "xdp.interfaces[1].mode = \"native \": must be one of \"native\", \"generic\"; did you mean `native`?",
        ),
        (
            "mode = \"generic\"",
            "gateway = ^\"01:00:5e:00:00:01\"",
            "xdp.interfaces[1].gateway = \"01:00:5e:00:00:01\": must be the IP or Ethernet address of a router, such as \"10.0.0.1\" or \"02:00:00:00:00:01\"",
        ),
        (
            "mode = \"generic\"",
            "gateway = ^\"0.0.0.0\"",
            "xdp.interfaces[1].gateway = \"0.0.0.0\": must be the IP or Ethernet address of a router, such as \"10.0.0.1\" or \"02:00:00:00:00:01\"",
        ),
        (
            "name = \"eth1\", mode",
            "name = \"eth1\", ^moed",
            "xdp.interfaces[1].moed: unknown key; did you mean `mode`?",
        ),
        (
            "{ name = \"eth1\", mode = \"generic\" }",
            "^7",
            "xdp.interfaces[1] = 7: an interface is a name, such as \"eth0\", or { name = \"eth0\", mode = \"native\" }; this is an integer",
        ),
        (
            "\"203.0.113.0/24\"",
            "^\"203.0.113.9/24\"",
            "xdp.deny[0] = \"203.0.113.9/24\": has bits set behind its length; did you mean `203.0.113.0/24`?",
        ),
        (
            "\"203.0.113.0/24\"",
            "^\"203.0.113.9\"",
            "xdp.deny[0] = \"203.0.113.9\": must be a prefix, such as \"203.0.113.0/24\" or \"2001:db8::/32\"; did you mean `203.0.113.9/32`?",
        ),
        (
            "\"203.0.113.0/24\"",
            "^\"file:../denied\"",
            "xdp.deny[0] = \"file:../denied\": must be a file beneath the directory of this config: a relative path without \".\" and \"..\"",
        ),
        (
            "secret = \"file:secrets/hash\"",
            "outer_source = [\"198.18.0.0/24\", ^\"198.19.0.0/24\"]",
            "xdp.outer_source[1] = \"198.19.0.0/24\": there is a prefix of this family already",
        ),
        (
            "secret = \"file:secrets/hash\"",
            "outer_source = [^\"224.0.0.0/24\"]",
            "xdp.outer_source[0] = \"224.0.0.0/24\": must be a prefix that is routed to this machine, or errors never come back",
        ),
        (
            "secret = \"file:secrets/hash\"",
            "outer_source = [^\"fe80::/64\"]",
            "xdp.outer_source[0] = \"fe80::/64\": must be a prefix that is routed to this machine, or errors never come back",
        ),
        (
            "\"file:secrets/hash\"",
            "^\"hunter2\"",
            "xdp.secret: a secret is given by reference, as in \"file:secret\"",
        ),
        (
            "\"file:secrets/hash\"",
            "^\"file:/etc/shadow\"",
            "xdp.secret: must be a file beneath the directory of this config: a relative path without \".\" and \"..\"",
        ),
        (
            "\"file:secrets/hash\"",
            "^\"file:a/../../b\"",
            "xdp.secret: must be a file beneath the directory of this config: a relative path without \".\" and \"..\"",
        ),
        (
            "\"/run/lb/admin.sock\"",
            "^\"admin.sock\"",
            "admin.socket = \"admin.sock\": must be an absolute path",
        ),
        (
            "\"127.0.0.1:9900\"",
            "^\"127.0.0.1\"",
            "admin.http = \"127.0.0.1\": needs a port; did you mean `127.0.0.1:80`?",
        ),
        ("200_000", "^0", "limits.connections = 0: must be a whole number from 1 to 10000000"),
        ("200_000", "^\"many\"", "limits.connections = \"many\": must be a whole number; this is a string"),
        ("200_000", "^1e6", "limits.connections = 1e6: must be a whole number; this is a float"),
        (
            "200_000",
            "^99999999999999999999999999999999999999999",
            "limits.connections = 99999999999999999999999999999999999999999: must be a whole number from 1 to 10000000",
        ),
        ("\"32KiB\"", "^\"512B\"", "limits.head_bytes = \"512B\": must be from 1KiB to 1MiB"),
        (
            "\"32KiB\"",
            "^\"32KB\"",
            "limits.head_bytes = \"32KB\": a size is a whole number and B, KiB, MiB or GiB, such as \"32KiB\"; did you mean `32KiB`?",
        ),
        (
            "\"32KiB\"",
            "^32768",
            "limits.head_bytes = 32768: a size is a string with a unit, such as \"32KiB\" or \"1MiB\"; this is an integer",
        ),
        ("\"10s\"", "^\"0s\"", "limits.head_timeout = \"0s\": must be from 10ms to 24h"),
        (
            "\"10s\"",
            "^10",
            "limits.head_timeout = 10: a duration is a string with a unit, such as \"60s\" or \"5m\"; this is an integer",
        ),
        ("\"10s\"", "^\"25h\"", "limits.head_timeout = \"25h\": must be from 10ms to 24h"),
        ("\"/var/lib/lb\"", "^\"state\"", "state.dir = \"state\": must be an absolute path"),
    ]);
}

#[test]
fn vips() {
    each(&[
        (
            "\"2001:db8::53\"]",
            "^\"::ffff:192.0.2.1\"]",
            "vip.dns.address[1] = \"::ffff:192.0.2.1\": must not be an IPv4-mapped address; did you mean `192.0.2.1`?",
        ),
        (
            "\"2001:db8::53\"]",
            "^\"0.0.0.0\"]",
            "vip.dns.address[1] = \"0.0.0.0\": must be one address, not the unspecified one",
        ),
        ("\"2001:db8::53\"]", "^\"ff02::1\"]", "vip.dns.address[1] = \"ff02::1\": must be a unicast address"),
        (
            "\"2001:db8::53\"]",
            "^\"192.0.2.1/24\"]",
            "vip.dns.address[1] = \"192.0.2.1/24\": has bits set behind its length; did you mean `192.0.2.0/24`?",
        ),
        (
            "\"2001:db8::53\"]",
            "^\"192.0.2.1/32\"]",
            "vip.dns.address[1] = \"192.0.2.1/32\": is a single address; did you mean `192.0.2.1`?",
        ),
        (
            "\"2001:db8::53\"]",
            "^\"224.0.0.0/4\"]",
            "vip.dns.address[1] = \"224.0.0.0/4\": must be unicast addresses",
        ),
        (
            "\"2001:db8::53\"]",
            "^\"192.0.2.1:53\"]",
            "vip.dns.address[1] = \"192.0.2.1:53\": must be an address without port; ports stand in `ports`",
        ),
        (
            "\"2001:db8::53\"]",
            "^\"192.0.2.53\"]",
            "vip.dns.address[1] = \"192.0.2.53\": this address is listed already",
        ),
        (
            "[\"192.0.2.53\", \"2001:db8::53\"]",
            "^[]",
            "vip.dns.address = []: must not be empty: must be an array of addresses, such as [\"192.0.2.53\"]",
        ),
        (
            "[\"192.0.2.53\", \"2001:db8::53\"]",
            "^\"192.0.2.53\"",
            "vip.dns.address = \"192.0.2.53\": must be an array of addresses, such as [\"192.0.2.53\"]; this is a string",
        ),
        (
            "\"53/udp\"",
            "^\"53/upd\"",
            "vip.dns.ports[0] = \"53/upd\": must be a port and its protocol, such as \"53/udp\"; did you mean `53/udp`?",
        ),
        (
            "\"53/udp\"",
            "^\"53\"",
            "vip.dns.ports[0] = \"53\": must be a port and its protocol, such as \"53/udp\"; did you mean `53/tcp`?",
        ),
        (
            "\"53/udp\"",
            "^53",
            "vip.dns.ports[0] = 53: a port is a string with its protocol, such as \"53/udp\"; this is an integer",
        ),
        (
            "\"53/udp\"",
            "^\"60-50/udp\"",
            "vip.dns.ports[0] = \"60-50/udp\": must be a range from a lower port to a higher one, such as \"8000-8100/tcp\"",
        ),
        (
            "\"53/udp\"",
            "^\"*/udp\"",
            "vip.dns.ports[0] = \"*/udp\": must be a port and its protocol, such as \"53/udp\"; did you mean `0/udp`?",
        ),
        (
            "\"53/udp\"",
            "^\"1-65535/udp\"",
            "vip.dns.ports[0] = \"1-65535/udp\": must be a port and its protocol, such as \"53/udp\"; did you mean `0/udp`?",
        ),
        (
            "[vip.dns]",
            "[vip.other]\naddress = [\"192.0.2.53\"]\nports = [\"50-60/udp\", ^\"60-70/udp\"]\nforward = \"ipip\"\npool = \"other\"\n\
             [pool.other]\nbackends = [\"10.0.3.1\"]\n[vip.dns]",
            "vip.other.ports[1] = \"60-70/udp\": overlaps the range 50-60/udp of the same address",
        ),
        (
            "\"53/udp\"",
            "^\"65536/udp\"",
            "vip.dns.ports[0] = \"65536/udp\": must be a port from 1 to 65535 and its protocol, such as \"53/udp\"",
        ),
        (
            "\"53/udp\", \"53/tcp\"",
            "\"53/tcp\", ^\"53/tcp\"",
            "vip.dns.ports[1] = \"53/tcp\": this port is listed already",
        ),
        (
            "flows = \"none\"",
            "flows = ^\"nnoe\"",
            "vip.dns.flows = \"nnoe\": must be one of \"none\"; did you mean `none`?",
        ),
        (
            "pool = \"dns\"",
            "pool = ^\"dbs\"",
            "vip.dns.pool = \"dbs\": there is no pool of this name; did you mean `db`?",
        ),
        (
            "[vip.dns]\naddress = [\"192.0.2.53\", \"2001:db8::53\"]",
            "^[vip.dns]",
            "vip.dns.address: missing: must be an array of addresses, such as [\"192.0.2.53\"]",
        ),
        (
            "[vip.dns]",
            "[vip.other]\naddress = [\"192.0.2.53\"]\nports = [\"8000-8100/tcp\"]\nforward = \"ipip\"\npool = \"other\"\n\
             [vip.third]\naddress = [\"192.0.2.53\"]\nports = [^\"8100-8200/tcp\"]\nforward = \"ipip\"\npool = \"other\"\n\
             [pool.other]\nbackends = [\"10.0.3.1\"]\n[vip.dns]",
            "vip.third.ports[0] = \"8100-8200/tcp\": overlaps the range 8000-8100/tcp of vip.other of the same address",
        ),
        (
            "[vip.dns]",
            "[vip.other]\naddress = [^\"192.0.2.53\"]\nports = [\"53/udp\"]\nforward = \"ipip\"\npool = \"dns\"\n[vip.dns]",
            "vip.other.address[0] = \"192.0.2.53\": vip.dns has this address with port 53/udp",
        ),
        (
            "[listener.db]\nbind = [\"0.0.0.0:5432\"]",
            "[listener.db]\nbind = [^\"192.0.2.53:53\"]",
            "listener.db.bind[0] = \"192.0.2.53:53\": vip.dns takes these packets before listener.db sees any",
        ),
        (
            "[listener.db]\nbind = [\"0.0.0.0:5432\"]",
            "[listener.db]\nbind = [^\"192.0.2.0/24:50-60\"]",
            "listener.db.bind[0] = \"192.0.2.0/24:50-60\": vip.dns takes some of these packets before listener.db sees any",
        ),
        (
            "[vip.dns]",
            "[vip.other]\naddress = [\"198.51.0.0/16\"]\nports = [\"0/tcp\"]\nforward = \"ipip\"\npool = \"other\"\n\
             [pool.other]\nbackends = [\"10.0.3.1\"]\n\
             [listener.wide]\nbind = [^\"198.51.100.0/24:7000\"]\nprotocol = \"tcp\"\npool = \"db\"\n[vip.dns]",
            "listener.wide.bind[0] = \"198.51.100.0/24:7000\": vip.other takes some of these packets before listener.wide sees any",
        ),
        (
            "[vip.dns]",
            "[vip.other]\naddress = [\"198.51.0.0/16\"]\nports = [\"6000-8000/tcp\"]\nforward = \"ipip\"\npool = \"other\"\n\
             [pool.other]\nbackends = [\"10.0.3.1\"]\n\
             [listener.wide]\nbind = [^\"198.51.100.1:7000\"]\nprotocol = \"tcp\"\npool = \"db\"\n[vip.dns]",
            "listener.wide.bind[0] = \"198.51.100.1:7000\": vip.other takes these packets before listener.wide sees any",
        ),
        (
            "[\"10.0.1.53\", \"10.0.1.54:53\"]",
            "[^\"10.0.1.53:54\"]",
            "pool.dns.backends[0] = \"10.0.1.53:54\": vip.dns forwards to its own port 53 and cannot change it; leave the port out; did you mean `10.0.1.53`?",
        ),
        (
            "[\"10.0.1.53\", \"10.0.1.54:53\"]",
            "[^\"192.0.2.53\"]",
            "pool.dns.backends[0] = \"192.0.2.53\": is an address of vip.dns itself",
        ),
        (
            "balance = \"maglev\"",
            "balance = ^\"round-robin\"",
            "pool.dns.balance = \"round-robin\": vip.dns uses this pool; behind VIPs only \"maglev\" is supported",
        ),
        (
            "health = { tcp = \"53\" }",
            "health = { tcp = ^\"auto\" }",
            "pool.dns.health.tcp = \"auto\": \"auto\" needs a port on every backend; give the port to probe; did you mean `53`?",
        ),
        (
            "health = { tcp = \"53\" }",
            "health = { http = ^\"/\" }",
            "pool.dns.health.http = \"/\": needs a port on every backend, or `port`, the port to probe",
        ),
    ]);
}

#[test]
fn a_vip_needs_xdp() {
    let text = "version = 1\n[vip.a]\naddress = [\"192.0.2.1\"]\nports = [\"80/tcp\"]\nforward = \"ipip\"\npool = \"p\"\n[pool.p]\nbackends = [\"10.0.0.1\"]";
    let expected = "edge.toml:2:1: vip.a: a VIP needs [xdp] with the interfaces that its packets come in by";
    assert_eq!(problems(text), [expected]);
}

#[test]
fn listeners() {
    each(&[
        (
            "\"0.0.0.0:5432\"",
            "^\"0.0.0.0\"",
            "listener.db.bind[0] = \"0.0.0.0\": needs a port; did you mean `0.0.0.0:80`?",
        ),
        (
            "\"0.0.0.0:5432\"",
            "^\"::1\"",
            "listener.db.bind[0] = \"::1\": needs a port; did you mean `[::1]:80`?",
        ),
        (
            "\"0.0.0.0:5432\"",
            "^\"*:80\"",
            "listener.db.bind[0] = \"*:80\": must be an address with port, such as \"0.0.0.0:80\" or \"[::]:80\"",
        ),
        (
            "\"0.0.0.0:5432\"",
            "^\"1.2.3.4:0\"",
            "listener.db.bind[0] = \"1.2.3.4:0\": port 0 would be another port at every start; give one from 1 to 65535",
        ),
        (
            "\"0.0.0.0:5432\"",
            "^\"[::ffff:1.2.3.4]:80\"",
            "listener.db.bind[0] = \"[::ffff:1.2.3.4]:80\": must not be an IPv4-mapped address; did you mean `1.2.3.4`?",
        ),
        (
            "\"[::]:443\"",
            "^\"0.0.0.0:5432\"",
            "listener.web.bind[1] = \"0.0.0.0:5432\": listener.db is bound to this address already",
        ),
        (
            "\"[::]:443\"",
            "^\"127.0.0.1:9900\"",
            "listener.web.bind[1] = \"127.0.0.1:9900\": admin.http is bound to this address already",
        ),
        (
            "protocol = \"tcp\"",
            "protocol = ^\"https\"",
            "listener.db.protocol = \"https\": must be one of \"http\", \"tcp\", \"udp\"; did you mean `http`?",
        ),
        (
            "proxy_protocol = \"off\"",
            "proxy_protocol = ^\"on\"",
            "listener.web.proxy_protocol = \"on\": must be one of \"off\", \"accept\", \"require\"",
        ),
        (
            "steer = \"core\"",
            "syn_cookies = ^\"on\"",
            "listener.db.syn_cookies = \"on\": must be one of \"auto\", \"off\"",
        ),
        (
            "steer = \"core\"",
            "steer = ^\"cpu\"",
            "listener.db.steer = \"cpu\": must be one of \"auto\", \"core\", \"hash\"",
        ),
        (
            "[listener.db]\nbind = [\"0.0.0.0:5432\"]\nprotocol = \"tcp\"\npool = \"db\"",
            "^[listener.db]\nbind = [\"0.0.0.0:5432\"]\nprotocol = \"tcp\"",
            "listener.db.pool: missing: must be the name of a pool, where connections go",
        ),
        (
            "[listener.db]",
            "[listener.^\"a b\"]",
            "listener.\"a b\": a name has 1 to 64 letters, digits, hyphens and underscores",
        ),
    ]);
}

#[test]
fn routes() {
    let again = |host: &str, path: &str| {
        format!(
            "[route.other]\nlistener = \"web\"\nhost = [\"x.example\", {host}]\npath = {path}\npool = \"api\"\n[route.api-v1]"
        )
    };
    each(&[
        (
            "listener = \"web\"",
            "listener = ^\"wbe\"",
            "route.api-v1.listener = \"wbe\": there is no listener of this name; did you mean `web`?",
        ),
        (
            "listener = \"web\"",
            "listener = ^\"db\"",
            "route.api-v1.listener = \"db\": is a relay (protocol = \"tcp\"): its routes go by `sni`",
        ),
        (
            "\"API.example.com\"",
            "^\"api.example.com:80\"",
            "route.api-v1.host[0] = \"api.example.com:80\": must be a host without port; IPv6 addresses stand in brackets; did you mean `api.example.com`?",
        ),
        (
            "\"API.example.com\"",
            "^\"a.*.com\"",
            "route.api-v1.host[0] = \"a.*.com\": a wildcard may stand only in front, as in \"*.example.com\"",
        ),
        (
            "\"*.example.org\"",
            "^\"api.EXAMPLE.com\"",
            "route.api-v1.host[1] = \"api.EXAMPLE.com\": this host is listed already",
        ),
        (
            "host = [\"API.example.com\", \"*.example.org\"]",
            "host = ^\"api.example.com\"",
            "route.api-v1.host = \"api.example.com\": must be an array of hosts, such as [\"api.example.com\", \"*.example.org\"]; this is a string",
        ),
        (
            "\"/v1/*\"",
            "^\"/v1/*/x\"",
            "route.api-v1.path = \"/v1/*/x\": a `*` may stand only for the end, as in \"/prefix/*\"; `{name}` stands for a segment",
        ),
        (
            "\"/v1/*\"",
            "^\"/a b\"",
            "route.api-v1.path = \"/a b\": must be a path of RFC 3986, 3.3: escape other characters as in \"%20\"",
        ),
        (
            "\"30s\"",
            "^\"30\"",
            "route.api-v1.timeout = \"30\": a duration needs a unit, such as \"60s\" or \"5m\"",
        ),
        (
            "pool = \"api\"\ntimeout",
            "pool = ^\"ap\"\ntimeout",
            "route.api-v1.pool = \"ap\": there is no pool of this name; did you mean `api`?",
        ),
        (
            "[route.api-v1]",
            &again("^\"*.example.org\"", "\"/v1/*\""),
            "route.other.host[1] = \"*.example.org\": route.api-v1 has the same listener, host and path",
        ),
    ]);
    // The same hosts with another path are no conflict.
    assert!(problems(&EXAMPLE.replace("[route.api-v1]", &again("\"*.example.org\"", "\"/v1\""))).is_empty());
}

#[test]
fn warnings_refuse_nothing() {
    for (old, new, expected) in [
        (
            "[pool.db]",
            "[pool.spare]\nbackends = [\"10.0.0.1:80\"]\n[pool.db]",
            "edge.toml:60:1: warning: pool.spare: nothing uses this pool",
        ),
        (
            "[listener.db]",
            "[listener.idle]\nbind = [\"[::1]:81\"]\nprotocol = \"http\"\n[listener.db]",
            "edge.toml:41:1: warning: listener.idle: has neither routes nor a pool: every request is answered with 404",
        ),
        (
            "flows = \"none\"",
            "hash = \"source\"\n[vip.more]\naddress = [\"192.0.2.9\", \"192.0.2.53\"]\nports = [\"5432/tcp\"]\n\
             forward = \"ipip\"\npool = \"db\"",
            "edge.toml:33:8: warning: vip.dns.hash = \"source\": fragments to 192.0.2.53 are dropped all the same: \
             vip.more has ports of it too, and a fragment has none",
        ),
        (
            "flows = \"none\"",
            "hash = \"source\"\n[vip.more]\naddress = [\"192.0.2.0/24\"]\nports = [\"5432/tcp\"]\n\
             forward = \"ipip\"\npool = \"db\"",
            "edge.toml:33:8: warning: vip.dns.hash = \"source\": fragments to 192.0.2.53 are dropped all the same: \
             vip.more has ports of it too, and a fragment has none",
        ),
    ] {
        let loaded = super::parse("edge.toml", &EXAMPLE.replace(old, new)).unwrap();
        assert_eq!(loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
}
