//! PROXY headers: the same answer however they are cut, and what we write is what we read.

use std::net::SocketAddr;

use lb::relay::proxy::{BYTES_MAX, Ends, Extras, Header, Parsed, parse, write_v1, write_v2};

use super::Target;
use crate::bytes::show;

/// See the module.
pub const TARGET: Target = Target { name: "proxy", run, seeds, words };

fn run(input: &[u8]) {
    let whole = parse(input);
    let mut known = Ok(Parsed::Partial);
    for cut in 0..=input.len() {
        let now = parse(&input[..cut]);
        assert!(
            known == Ok(Parsed::Partial) || known == now,
            "{} at {cut}: {known:?} became {now:?}",
            show(input)
        );
        known = now;
    }
    assert_eq!(known, whole);
    let Ok(Parsed::Complete(Header { len, ends })) = whole else { return };
    assert!((15..=BYTES_MAX).contains(&len) && len <= input.len());
    assert!(matches!(parse(&input[..len]), Ok(Parsed::Complete(header)) if header.len == len));
    let mut line = Vec::new();
    write_v1(&mut line, ends);
    let mut binary = Vec::new();
    write_v2(&mut binary, ends, &Extras { authority: Some(b"a"), unique_id: Some(&[7; 16]) });
    for again in [line, binary] {
        let expected = Parsed::Complete(Header { len: again.len(), ends });
        assert_eq!(parse(&again), Ok(expected), "{}", show(&again));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let mut seeds: Vec<Vec<u8>> = [
        &b"PROXY UNKNOWN\r\nGET"[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40112 443\r\nGET",
        b"PROXY TCP6 ::ffff:1.2.3.4 ::1 0 65535\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8",
    ]
    .map(<[u8]>::to_vec)
    .into();
    for ends in [
        None,
        Some(Ends::new(address("192.0.2.7:1"), address("198.51.100.1:2"))),
        Some(Ends::new(address("[2001:db8::7]:1"), address("[::1]:2"))),
    ] {
        let mut binary = Vec::new();
        write_v2(&mut binary, ends, &Extras { authority: Some(b"a.example"), unique_id: Some(b"id") });
        binary.extend_from_slice(b"rest");
        seeds.push(binary);
    }
    seeds
}

fn words() -> Vec<Vec<u8>> {
    [
        &b"PROXY TCP4 "[..],
        b"PROXY TCP6 ",
        b"PROXY UNKNOWN",
        b" 192.0.2.7",
        b" 2001:db8::7",
        b" 65535",
        b"\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\x20\0",
        b"\x21\x11\0\x0c",
        b"\x21\x21\0\x24",
        b"\x03\0\x04",
        b"\x04\0\0",
    ]
    .map(<[u8]>::to_vec)
    .into()
}
