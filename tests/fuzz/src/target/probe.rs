//! Answers to health checks: every kind makes the same of them however they are cut, and holds a bounded part of them.

use lb::{
    config::{BodyTest, CheckKind, HttpCheck, Pattern, Payload, Statuses, UdpCheck},
    health::{Found, Script},
    metrics::ProbeEnd,
};

use super::Target;
use crate::bytes::{cuts, show};

/// See the module.
pub const TARGET: Target = Target { name: "probe", run, seeds, words };

fn run(input: &[u8]) {
    for script in scripts() {
        let whole = hear(&script, [input]);
        for cut in cuts(input.len()) {
            let (a, b) = input.split_at(cut);
            assert_eq!(hear(&script, [a, b]), whole, "{}: {} at {cut}", script.label(), show(input));
        }
        assert_eq!(hear(&script, input.chunks(1)), whole, "{}: {}", script.label(), show(input));
    }
}

/// What the dialogue comes to, if the backend ends the connection behind these.
fn hear<'a>(script: &Script, pieces: impl IntoIterator<Item = &'a [u8]>) -> ProbeEnd {
    let mut dialogue = script.dialogue();
    let found = pieces.into_iter().map(|piece| dialogue.handle(piece)).find(|found| *found != Found::More);
    match found.unwrap_or_else(|| dialogue.handle_end()) {
        Found::Up => ProbeEnd::Answered,
        Found::Down(fault) => {
            assert!(fault.text.len() < 500 && fault.text.bytes().all(|byte| (b' '..0x7f).contains(&byte)));
            fault.end
        }
        Found::More => panic!("{}: an end that is none", script.label()),
    }
}

/// Of every kind that reads a connection.
fn scripts() -> Vec<Script> {
    let http = |body| {
        CheckKind::Http(HttpCheck {
            path: "/".into(),
            is_head: false,
            status: Statuses::default(),
            body,
            host: None,
            headers: Vec::new(),
            tls: None,
        })
    };
    let address = "127.0.0.1:80";
    let pattern = Pattern::within("o+k$").expect("a pattern");
    let kinds = [
        http(None),
        http(Some(BodyTest::Text("ook".into()))),
        http(Some(BodyTest::Pattern(pattern))),
        CheckKind::Redis,
        CheckKind::Postgres,
        CheckKind::Mysql,
    ];
    let datagram = Payload { text: "ook".into(), bytes: b"ook"[..].into() };
    let udp = CheckKind::Udp(UdpCheck { send: Some(datagram.clone()), expect: Some(datagram) });
    // Datagrams are not cut; they are only to be survived.
    _ = Script::new(&udp, address).dialogue().handle(b"o");
    kinds.iter().map(|kind| Script::new(kind, address)).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nook"[..],
        b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.0 302 Found\r\n\r\na long ook",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nlo\r\na\r\nok. no ook.\r\n0\r\n\r\n",
        b"HTTP/1.1 503 No\r\nRetry-After: 1\r\n\r\n",
        b"+PONG\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0",
        b"E\0\0\0\x1cSFATAL\0C57P03\0Mstarting\0\0",
        b"\x24\0\0\0\x0a10.11.6-MariaDB\0\x07\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff",
        b"\x17\0\0\0\xff\x10\x04Too many connections",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

fn words() -> Vec<Vec<u8>> {
    [
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"HTTP/1.1 100 \r\n\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"\r\n",
        b"0\r\n\r\n",
        b"ook",
        b"-NOAUTH ",
        b"C57P03\0",
        b"R\0\0\0\x08",
        b"\0\0\0\xff",
        b"\0\0\0\x0a",
    ]
    .map(<[u8]>::to_vec)
    .into()
}
