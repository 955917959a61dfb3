//! udp listeners.

use std::time::Duration;

use super::{super::parse, problems};
use crate::{
    config::{BackendIds, Snapshot, Udp},
    model::Generation,
};

fn with(protocol: &str, listener: &str, rest: &str) -> String {
    format!(
        "version = 1\n[listener.l]\nbind = [\"[::1]:53\"]\nprotocol = \"{protocol}\"\n{listener}\n\
         [pool.p]\nbackends = [\"10.0.0.1:53\"]\n{rest}\n"
    )
}

#[test]
fn patience_is_its_own_or_everybodys() {
    let udp = |listener: &str| {
        let config = parse("f", &with("udp", listener, "[limits]\nidle_timeout = \"9s\"")).unwrap().config;
        Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap().listeners[0].udp
    };
    assert_eq!(udp("pool = \"p\""), Udp { idle: Duration::from_secs(9), replies: 0 });
    let own = udp("pool = \"p\"\nidle = \"3s\"\nreplies = 1");
    assert_eq!(own, Udp { idle: Duration::from_secs(3), replies: 1 });
}

#[test]
fn a_port_of_each_transport_is_another_one() {
    let tcp = "[listener.t]\nbind = [\"[::1]:53\"]\nprotocol = \"tcp\"\npool = \"p\"";
    assert!(problems(&with("udp", "pool = \"p\"", tcp)).is_empty());
    let udp = tcp.replace("\"tcp\"", "\"udp\"");
    let [problem] = &problems(&with("udp", "pool = \"p\"", &udp))[..] else { panic!("one problem") };
    assert!(problem.contains("is bound to this address already"), "{problem}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (protocol, listener, rest, expected) in [
        ("udp", "", "", "listener.l.pool: missing: must be the name of a pool, where datagrams go"),
        (
            "tcp",
            "pool = \"p\"\nidle = \"3s\"",
            "",
            "listener.l.idle = \"3s\": only listeners with protocol = \"udp\" have it",
        ),
        (
            "udp",
            "pool = \"p\"\nreplies = 0",
            "",
            "listener.l.replies = 0: must be a whole number from 1 to 1024",
        ),
        (
            "udp",
            "pool = \"p\"\nsteer = \"core\"",
            "",
            "listener.l.steer = \"core\": has no meaning for datagrams; leave it out",
        ),
        (
            "udp",
            "pool = \"p\"",
            "[route.r]\nlistener = \"l\"\npool = \"p\"\nsni = [\"a.test\"]",
            "route.r.listener = \"l\": takes datagrams, and those have no routes",
        ),
        (
            "udp",
            "pool = \"p\"",
            "proxy_protocol = \"v2\"",
            "pool.p.proxy_protocol = \"v2\": listener.l uses this pool; datagrams are not headed by anything",
        ),
    ] {
        let found = problems(&with(protocol, listener, rest));
        assert!(found.iter().any(|problem| problem.ends_with(expected)), "{expected}\n{found:#?}");
    }
    let vip = "[xdp]\ninterfaces = [\"eth0\"]\n[vip.v]\naddress = [\"192.0.2.1\"]\nports = [\"53/udp\", \"54/tcp\"]\n\
        forward = \"ipip\"\npool = \"v\"\n[pool.v]\nbackends = [\"10.0.0.2\"]";
    let beside = with("udp", "pool = \"p\"", vip).replace("[::1]:53", "192.0.2.1:53");
    let [problem] = &problems(&beside)[..] else { panic!("one problem") };
    assert!(problem.ends_with("vip.v takes these packets before listener.l sees any"), "{problem}");
    assert!(problems(&beside.replace("192.0.2.1:53", "192.0.2.1:54")).is_empty());
    let ranged = with("udp", "pool = \"p\"", "").replace("[::1]:53", "[::1]:53-60");
    let found = problems(&ranged);
    assert!(found.iter().any(|problem| problem.contains("taken at single addresses only")), "{found:#?}");
}
