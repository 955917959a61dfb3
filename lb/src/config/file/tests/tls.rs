//! `[tls.NAME]`, `listener.tls` and `pool.tls`.

use super::{super::*, problems};
use crate::config::*;

const LISTENER: &str = "version = 1\n[pool.p]\nbackends = [\"10.0.0.1:80\"]\n[listener.l]\nbind = [\"[::1]:443\"]\nprotocol = \"http\"\npool = \"p\"\n";
const ENTRY: &str = "[tls.a]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";

/// What is wrong with an entry of these keys, which a listener uses, without its place.
fn entry(keys: &str) -> Vec<String> {
    said(&format!("{LISTENER}tls = [\"a\"]\n[tls.a]\n{keys}"))
}

fn pool(keys: &str) -> Vec<String> {
    said(&format!(
        "version = 1\n[listener.l]\nbind = [\"[::1]:443\"]\nprotocol = \"http\"\npool = \"p\"\n[pool.p]\nbackends = [\"10.0.0.1:443\", \"unix:/run/a\"]\ntls = {{ {keys} }}\n"
    ))
}

fn said(text: &str) -> Vec<String> {
    let place = |problem: String| problem.splitn(4, ':').nth(3).unwrap().trim().to_owned();
    problems(text).into_iter().map(place).collect()
}

#[test]
fn a_certificate_has_its_key() {
    let file = "must be a file beneath the directory of this config";
    for (keys, expected) in [
        ("key = \"a.key\"", format!("tls.a.certificate: missing: {file}, such as \"certs/example.pem\"")),
        ("certificate = \"a.pem\"", format!("tls.a.key: missing: {file}, such as \"certs/example.pem\"")),
        (
            "certificate = \"/etc/a.pem\"\nkey = \"a.key\"",
            format!("tls.a.certificate = \"/etc/a.pem\": {file}: a relative path without \".\" and \"..\""),
        ),
        (
            "certificate = [\"a.pem\", \"b.pem\"]\nkey = \"a.key\"",
            "tls.a.key = \"a.key\": must be 2, as many as `certificate`: each has its own key".to_owned(),
        ),
        (
            "certificate = [\"a.pem\", \"a.pem\"]\nkey = [\"a.key\", \"b.key\"]",
            "tls.a.certificate[1] = \"a.pem\": stands there already".to_owned(),
        ),
        (
            "certificate = \"a.pem\"\nkey = \"a.key\"\nocsp = \"a.der\"",
            "tls.a.ocsp = \"a.der\": is given by reference, as in \"file:shop.ocsp\", or is \"fetch\"".to_owned(),
        ),
        (
            "certificate = \"a.pem\"\nkey = \"a.key\"\nnames = [\"a.*.example\"]",
            "tls.a.names[0] = \"a.*.example\": a wildcard may stand only in front, as in \"*.example.com\"".to_owned(),
        ),
        (
            "certificate = \"a.pem\"\nkey = \"a.key\"\nprofile = \"moderm\"",
            "tls.a.profile = \"moderm\": must be one of \"default\", \"modern\", \"compatible\"; did you mean `modern`?"
                .to_owned(),
        ),
        (
            "certificate = \"a.pem\"\nkey = \"a.key\"\nclient_auth = { ca = \"file:c.pem\" }",
            "tls.a.client_auth.mode: missing: must be \"required\" or \"optional\"".to_owned(),
        ),
        (
            "certificate = \"a.pem\"\nkey = \"a.key\"\nclient_auth = { ca = \"file:c.pem\", mode = \"optional\", headers = { Host = \"subject\" } }",
            "tls.a.client_auth.headers.Host = \"subject\": cannot be changed here; `rewrite` has `host` for requests"
                .to_owned(),
        ),
    ] {
        assert_eq!(entry(keys), [expected], "{keys}");
    }
    assert_eq!(entry("certificate = \"a.pem\"\nkey = \"file:a.key\"\n"), [""; 0]);
    // One word is enough for several, and may stand beside files, as often as there are certificates.
    let several = "certificate = [\"a.pem\", \"b.pem\"]\nkey = [\"a.key\", \"b.key\"]\nocsp = ";
    for ocsp in ["\"fetch\"", "[\"fetch\", \"fetch\"]", "[\"file:a.ocsp\", \"fetch\"]"] {
        assert_eq!(entry(&format!("{several}{ocsp}\n")), [""; 0], "{ocsp}");
    }
    let expected = ["tls.a.ocsp = [\"fetch\"]: must be 2, as many as `certificate`"];
    assert_eq!(entry(&format!("{several}[\"fetch\"]\n")), expected);
}

#[test]
fn listeners_name_entries_that_there_are() {
    let tls = |names: &str, rest: &str| said(&format!("{LISTENER}tls = {names}\n{ENTRY}{rest}"));
    assert_eq!(tls("[\"a\"]", ""), [""; 0]);
    let other = "[tls.other]\ncertificate = \"b.pem\"\nkey = \"b.key\"\n";
    assert_eq!(tls("[\"a\"]", other), ["warning: tls.other: no listener uses it"]);
    assert_eq!(
        tls("[\"a\", \"othre\"]", other),
        ["listener.l.tls[1] = \"othre\": there is no [tls.NAME] of this name; did you mean `other`?"]
    );
    assert_eq!(tls("[\"a\", \"a\"]", ""), ["listener.l.tls[1] = \"a\": stands there already"]);
    let two = "default = true\n[tls.b]\ncertificate = \"b.pem\"\nkey = \"b.key\"\ndefault = true\n";
    assert_eq!(
        tls("[\"a\", \"b\"]", two),
        ["listener.l.tls[1] = \"b\": is `default`, and so is tls.a: a listener has one"]
    );
    let udp = LISTENER.replace("\"http\"", "\"udp\"");
    assert_eq!(
        said(&format!("{udp}tls = [\"a\"]\n{ENTRY}")),
        ["listener.l.tls[0] = \"a\": only listeners with protocol = \"http\" or \"tcp\" speak TLS"]
    );
    let tcp = LISTENER.replace("\"http\"", "\"tcp\"");
    assert_eq!(
        said(&format!(
            "{tcp}tls = [\"a\"]\n{ENTRY}[route.r]\nlistener = \"l\"\nsni = [\"x\"]\npool = \"p\"\n"
        )),
        [
            "listener.l.tls[0] = \"a\": TLS ends here, and this listener's routes by `sni` pass it on: one or the other"
        ]
    );
}

#[test]
fn backends_are_looked_at_unless_that_is_declined() {
    let sni =
        "pool.p.backends[1] = \"unix:/run/a\": needs `sni` in `tls`: no certificate is for a socket's path";
    for (keys, expected) in [
        ("verify = false", &[][..]),
        ("sni = \"a.example\"", &[]),
        ("ca = \"file:a.pem\", sni = \"a.example\", certificate = \"b.pem\", key = \"b.key\"", &[]),
        ("", &[sni]),
        ("verify = true", &[sni]),
        (
            "verify = false, ca = \"file:a.pem\"",
            &["pool.p.tls.verify = false: stands beside `ca`, which says whose certificates are good"],
        ),
        ("verify = false, key = \"a.key\"", &["pool.p.tls.key = \"a.key\": needs `certificate`, too"]),
        (
            "verify = false, certificate = \"a.pem\"",
            &["pool.p.tls.certificate = \"a.pem\": needs `key`, too"],
        ),
        (
            "verify = false, alpn = [\"h2\"]",
            &["pool.p.tls.alpn[0] = \"h2\": the pool's `protocol = \"h2\"` says this"],
        ),
    ] {
        assert_eq!(pool(keys), expected, "{keys}");
    }
    let text = "version = 1\n[pool.p]\nbackends = [\"10.0.0.1:443\"]\ntls = {}\n";
    let config = parse("f", text).unwrap().config;
    assert_eq!(config.pools["p"].tls.as_ref().unwrap().trust, CheckTrust::Host);
}

#[test]
fn data_come_early_only_where_that_is_said() {
    let tls = |keys: &str| {
        let text = format!(
            "version = 1\n[listener.l]\nbind = [\"[::1]:443\"]\nprotocol = \"http\"\npool = \"p\"\ntls = [\"a\"]\n\
             [pool.p]\nbackends = [\"10.0.0.1:80\"]\n[tls.a]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n{keys}\n"
        );
        parse("f", &text)
            .map(|parsed| parsed.config.tls["a"].early_data)
            .map_err(|problems| problems.to_string())
    };
    for (keys, bytes) in [
        ("", None),
        ("early_data = false", None),
        ("early_data = true", Some(16 << 10)),
        ("early_data = true\nearly_data_bytes = \"2KiB\"", Some(2 << 10)),
    ] {
        assert_eq!(tls(keys), Ok(bytes), "{keys}");
    }
    for (keys, why) in [
        (
            "early_data_bytes = \"2KiB\"",
            "tls.a.early_data_bytes = \"2KiB\": has no meaning without `early_data = true`",
        ),
        (
            "early_data = true\nearly_data_bytes = \"17KiB\"",
            "tls.a.early_data_bytes = \"17KiB\": must be from 1KiB to 16KiB",
        ),
        (
            "early_data = true\ntickets = \"file:t.key\"",
            "tls.a.tickets = \"file:t.key\": has no meaning with `early_data`: its sessions are kept by one process, each good for \
             one use",
        ),
        ("early_data = 1", "tls.a.early_data = 1: must be true or false"),
    ] {
        let problems = tls(keys).unwrap_err();
        assert!(problems.contains(why), "{problems}");
    }
}

#[test]
fn a_header_tells_of_one_client_before_anything_else() {
    let pool = |keys: &str| {
        parse(
            "f",
            &format!(
                "version = 1\n[pool.p]\nbackends = [\"10.0.0.1:443\"]\nproxy_protocol = \"v2\"\n{keys}\n"
            ),
        )
    };
    let problems = pool("protocol = \"h2\"").unwrap_err().to_string();
    let why = "pool.p.proxy_protocol = \"v2\": has no meaning with `protocol = \"h2\"`";
    assert!(problems.contains(why), "{problems}");
    let config = pool("tls = { verify = false }").unwrap().config;
    let pool = &config.pools["p"];
    assert!(pool.tls.is_some() && pool.proxy_protocol.is_some());
}

#[test]
fn what_is_passed_on_as_it_is_is_not_sealed_again() {
    let pool = "[pool.p]\nbackends = [\"10.0.0.1:443\"]\ntls = {}\n";
    let udp = "[listener.u]\nbind = [\"[::1]:53\"]\nprotocol = \"udp\"\npool = \"p\"\n";
    let sni = "[listener.t]\nbind = [\"[::1]:443\"]\nprotocol = \"tcp\"\n[route.r]\nlistener = \"t\"\nsni = [\"a\"]\npool = \"p\"\n";
    let vip = "[xdp]\ninterfaces = [\"eth0\"]\n[vip.v]\naddress = [\"192.0.2.1\"]\nports = [\"443/tcp\"]\nforward = \"ipip\"\npool = \"p\"\n";
    for (user, why) in [
        (udp, "listener.u uses this pool, and takes datagrams"),
        (sni, "route.r uses this pool, and passes on what TLS its clients speak"),
        (vip, "vip.v uses this pool, and forwards packets as they are"),
    ] {
        let said = said(&format!("version = 1\n{user}{pool}"));
        assert!(said.iter().any(|said| said.starts_with("pool.p.tls") && said.ends_with(why)), "{said:?}");
    }
    let tcp = "[listener.t]\nbind = [\"[::1]:443\"]\nprotocol = \"tcp\"\npool = \"p\"\n";
    assert_eq!(said(&format!("version = 1\n{tcp}{pool}")), [""; 0]);
}
