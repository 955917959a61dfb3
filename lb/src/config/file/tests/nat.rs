//! `forward = "nat"`: what is read, and one row per rule.

use super::{problems, *};

const NAT: &str = r#"version = 1
xdp.interfaces = ["eth0"]
[vip.web]
address = ["192.0.2.1"]
ports = ["80/tcp", "443/tcp"]
forward = "nat"
nat_source = ["10.0.9.0/30", "10.0.9.9"]
pool = "web"
[vip.web6]
address = ["2001:db8::1"]
ports = ["80/tcp"]
forward = "nat"
nat_source = ["fd00:9::/124"]
pool = "web6"
[pool.web]
backends = ["10.0.0.11:8080", "10.0.0.11:8081", "10.0.0.12"]
[pool.web6]
backends = ["[fd00::11]:8080"]
"#;

#[test]
fn it_is_read_as_written_and_shown_again() {
    let loaded = parse("f", NAT).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let vip = &loaded.config.vips["web"];
    assert_eq!(vip.forward, Forward::Nat);
    assert_eq!(vip.nat_source, ["10.0.9.0/30".parse().unwrap(), "10.0.9.9/32".parse().unwrap()]);
    let shown = loaded.config.to_json();
    assert_eq!(shown["vip"]["web"]["nat_source"], serde_json::json!(["10.0.9.0/30", "10.0.9.9/32"]));
    assert_eq!(shown["vip"]["web"]["forward"], "nat");
}

#[test]
fn rules() {
    for (old, new, expected) in [
        (
            "nat_source = [\"10.0.9.0/30\", \"10.0.9.9\"]\n",
            "",
            "3:1: vip.web.nat_source: missing: must be an array of addresses or prefixes that are routed to this box and used by nothing else, such as [\"10.0.9.0/28\"]",
        ),
        (
            "forward = \"nat\"\nnat_source = [\"fd00:9::/124\"]",
            "forward = \"l2dsr\"\nnat_source = [\"fd00:9::/124\"]",
            "13:14: vip.web6.nat_source: only a VIP with forward = \"nat\" translates sources",
        ),
        (
            "\"10.0.9.9\"",
            "\"10.0.9.9/30\"",
            "7:30: vip.web.nat_source[1] = \"10.0.9.9/30\": has bits set behind its length; did you mean `10.0.9.8/30`?",
        ),
        (
            "\"10.0.9.9\"",
            "\"10.0.9.2\"",
            "7:30: vip.web.nat_source[1] = \"10.0.9.2\": overlaps another source of this VIP",
        ),
        (
            "\"10.0.9.9\"",
            "\"10.0.0.0/24\"",
            "7:30: vip.web.nat_source[1] = \"10.0.0.0/24\": contains 10.0.0.11, which is a backend of pool.web",
        ),
        (
            "\"10.0.9.9\"",
            "\"192.0.2.1\"",
            "7:30: vip.web.nat_source[1] = \"192.0.2.1\": contains 192.0.2.1, which is an address of vip.web",
        ),
        (
            "\"10.0.9.9\"",
            "\"fd00:9::77\"",
            "7:30: vip.web.nat_source[1] = \"fd00:9::77\": must be IPv4, as the VIP's addresses are",
        ),
        (
            "\"10.0.9.9\"",
            "\"10.1.0.0/21\"",
            "7:30: vip.web.nat_source[1] = \"10.1.0.0/21\": there can be at most 1024 sources over all VIPs",
        ),
        (
            "[\"192.0.2.1\"]",
            "[\"192.0.2.1\", \"2001:db8::2\"]",
            "4:25: vip.web.address[1] = \"2001:db8::2\": a VIP with forward = \"nat\" has addresses of one family: nothing is translated between IPv4 and IPv6; make it two VIPs with a pool each",
        ),
        (
            "\"10.0.0.12\"",
            "\"fd00::12\"",
            "16:49: pool.web.backends[2] = \"fd00::12\": must be IPv4: vip.web uses this pool, and forward = \"nat\" does not translate between IPv4 and IPv6",
        ),
    ] {
        assert!(NAT.contains(old), "{old:?}");
        let text = NAT.replacen(old, new, 1);
        let found = problems(&text);
        assert!(found.contains(&format!("edge.toml:{expected}")), "{new:?}: {found:#?}");
    }
    let v6 = NAT.replace("fd00:9::/124", "fd00:9::/64");
    assert_eq!(problems(&v6).len(), 1, "a prefix of 2^64 addresses");
}

#[test]
fn what_chooses_a_backend_goes_with_it() {
    let with = |keys: &str| NAT.replacen("pool = \"web\"", &format!("pool = \"web\"\n{keys}"), 1);
    let loaded = parse("f", &with("hash = \"source\"")).unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "f:9:8: warning: vip.web.hash = \"source\": fragments are dropped all the same: ports are translated with \
          them, and a fragment has none"
        ]
    );
    assert!(parse("f", &with("hash = \"destination-port\"")).unwrap().warnings.is_empty());
    let blue = with("sources = [{ prefix = \"198.51.100.0/24\", pool = \"blue\" }]");
    let loaded = parse("f", &format!("{blue}[pool.blue]\nbackends = [\"10.0.0.13:9090\"]\n")).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let v6 = problems(&format!("{blue}[pool.blue]\nbackends = [\"[fd00::13]:80\"]\n"));
    assert_eq!(v6.len(), 1);
    assert!(
        v6[0].contains("pool.blue.backends[0] = \"[fd00::13]:80\": must be IPv4: vip.web uses"),
        "{v6:?}"
    );
}
