//! Headers, sound and not, however they are cut.

use proptest::prelude::*;

use super::*;

const PEERS: Option<(&str, &str)> = Some(("192.0.2.7:40112", "198.51.100.1:443"));

fn ends(client: &str, destination: &str) -> Ends {
    Ends::new(client.parse().unwrap(), destination.parse().unwrap())
}

/// A version 2 header: command, family and protocol, what follows the length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    [v2::SIGNATURE, &[command, family, len[0], len[1]], rest].concat()
}

const INET: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0xb0, 1, 0xbb];

/// With a sound checksum as its first TLV.
fn summed(tlvs: &[u8]) -> Vec<u8> {
    let mut header = v2(0x21, 0x11, &[&INET[..], &[3, 0, 4, 0, 0, 0, 0], tlvs].concat());
    let sum = crc32c::crc32c(header.iter().copied());
    header[31..35].copy_from_slice(&sum.to_be_bytes());
    header
}

fn check(bytes: &[u8], expected: Option<(&str, &str)>) {
    let expected = expected.map(|(client, destination)| ends(client, destination));
    let whole = Parsed::Complete(Header { len: bytes.len(), ends: expected });
    assert_eq!(parse(bytes), Ok(whole), "{}", bytes.escape_ascii());
    assert_eq!(parse(&[bytes, b"GET / HTTP/1.1\r\n"].concat()), Ok(whole));
    for cut in 0..bytes.len() {
        assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Partial), "{} of {}", cut, bytes.escape_ascii());
    }
}

#[test]
fn sound_headers() {
    check(b"PROXY TCP4 192.0.2.7 198.51.100.1 40112 443\r\n", PEERS);
    check(
        b"PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n",
        Some(("[2001:db8::7]:0", "[2001:db8::1]:65535")),
    );
    check(b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 40112 443\r\n", PEERS);
    check(b"PROXY UNKNOWN\r\n", None);
    check(b"PROXY UNKNOWN ffff:f...f:ffff what ever 65535 65535\r\n", None);
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    assert_eq!(line.len(), 107);
    check(line.as_bytes(), None);
    check(&v2(0x21, 0x11, &INET), PEERS);
    let inet6: Vec<u8> = (0..36).collect();
    check(
        &v2(0x21, 0x21, &inet6),
        Some(("[1:203:405:607:809:a0b:c0d:e0f]:8225", "[1011:1213:1415:1617:1819:1a1b:1c1d:1e1f]:8739")),
    );
    // Those who speak for themselves, or for somebody without an address.
    check(&v2(0x20, 0, &[]), None);
    check(&v2(0x20, 0xff, &[1, 2, 3]), None);
    check(&v2(0x21, 0, &[9, 9, 9]), None);
    check(&v2(0x21, 0x31, &[b'/'; 216]), None);
    check(&v2(0x21, 0x12, &INET), None);
}

#[test]
fn tlvs_are_stepped_over_and_checksums_checked() {
    let tlvs = [&[4, 0, 2, 9, 9, 2, 0, 3][..], b"a.b", &[0xe0, 0, 0]].concat();
    check(&v2(0x21, 0x11, &[&INET[..], &tlvs].concat()), PEERS);
    check(&summed(&tlvs), PEERS);
    let sound = summed(&tlvs);
    // But not the byte that says which TLV is the checksum.
    for at in (16..sound.len()).filter(|at| *at != 28) {
        let mut broken = sound.clone();
        broken[at] ^= 0x40;
        assert!(matches!(parse(&broken), Err(ProxyError::Checksum | ProxyError::Tlv)), "byte {at}");
    }
}

#[test]
fn broken_headers_are_refused_by_name() {
    let line = |text: &str| [text.as_bytes(), b"\r\n"].concat();
    for text in [
        "PROXY TCP5 192.0.2.7 198.51.100.1 1 2",
        "PROXY tcp4 192.0.2.7 198.51.100.1 1 2",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 ",
        "PROXY TCP4  192.0.2.7 198.51.100.1 1 2",
        "PROXY TCP4 192.0.2.07 198.51.100.1 1 2",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2",
        "PROXY TCP4 192.0.2.7 198.51.100.1 01 2",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2",
        "PROXY TCP4 ::1 ::1 1 2",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 2",
        "PROXY TCP6 fe80::1%1 ::1 1 2",
        "PROXY UNKNOWNS",
        "PROXY ",
        "PROXY \u{e4}",
    ] {
        assert_eq!(parse(&line(text)), Err(ProxyError::Fields), "{text}");
    }
    assert_eq!(parse(b"PROXY UNKNOWN\n"), Err(ProxyError::Line));
    assert_eq!(parse(&line(&format!("PROXY UNKNOWN {}", "x".repeat(92)))), Err(ProxyError::Line));
    assert_eq!(parse(format!("PROXY {}", "x".repeat(101)).as_bytes()), Err(ProxyError::Line));
    for (header, expected) in [
        (v2(0x11, 0x11, &INET), ProxyError::Command),
        (v2(0x22, 0x11, &INET), ProxyError::Command),
        (v2(0x21, 0x41, &INET), ProxyError::Family),
        (v2(0x21, 0x13, &INET), ProxyError::Family),
        (v2(0x21, 0x11, &INET[..11]), ProxyError::Length),
        (v2(0x21, 0x21, &[0; 35]), ProxyError::Length),
        (v2(0x21, 0x31, &[0; 215]), ProxyError::Length),
        (v2(0x20, 0, &vec![0; BYTES_MAX]), ProxyError::Length),
        (v2(0x21, 0x11, &[&INET[..], &[4, 0]].concat()), ProxyError::Tlv),
        (v2(0x21, 0x11, &[&INET[..], &[4, 0, 2, 0]].concat()), ProxyError::Tlv),
        (v2(0x21, 0x11, &[&INET[..], &[3, 0, 3, 0, 0, 0]].concat()), ProxyError::Tlv),
        (summed(&[3, 0, 4, 0, 0, 0, 0]), ProxyError::Tlv),
        (v2(0x21, 0x11, &[&INET[..], &[3, 0, 4, 0, 0, 0, 0]].concat()), ProxyError::Checksum),
    ] {
        assert_eq!(parse(&header), Err(expected), "{}", header.escape_ascii());
    }
}

#[test]
fn what_is_no_header_is_known_by_its_first_odd_byte() {
    for text in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PROXY\t", b"PROXIMITY", b"\r\n\r\n\r\n", b"p"]
    {
        assert_eq!(parse(text), Ok(Parsed::Absent), "{}", text.escape_ascii());
    }
    for text in [&b""[..], b"P", b"PROXY", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(parse(text), Ok(Parsed::Partial), "{}", text.escape_ascii());
    }
}

#[test]
fn what_we_write_is_what_we_read() {
    for (client, destination) in
        [("192.0.2.7:1", "198.51.100.1:2"), ("[2001:db8::7]:1", "[::1]:65535"), ("192.0.2.7:1", "[::1]:2")]
    {
        let told = ends(client, destination);
        let mut line = Vec::new();
        write_v1(&mut line, Some(told));
        check(&line, Some((client, destination)));
        let mut binary = Vec::new();
        let extras = Extras { authority: Some(b"a.example"), unique_id: Some(b"0123456789abcdef") };
        write_v2(&mut binary, Some(told), &extras);
        check(&binary, Some((client, destination)));
        let last = binary.len() - 1;
        binary[last] ^= 1;
        assert_eq!(parse(&binary), Err(ProxyError::Checksum));
    }
    let (mut line, mut binary) = (Vec::new(), Vec::new());
    write_v1(&mut line, None);
    write_v2(&mut binary, None, &Extras::default());
    check(&line, None);
    check(&binary, None);
}

proptest! {
    /// Once it has answered, more bytes change nothing; before that it asked for more.
    #[test]
    fn any_cut_gives_the_same_result(
        which in 0usize..4,
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        text in "(TCP4|TCP6|UNKNOWN|x)( [0-9a-f.:]{0,20}){0,5}\r?\n?.{0,9}",
    ) {
        let input = match which {
            0 => bytes,
            1 => [v1::SIGNATURE, text.as_bytes()].concat(),
            2 => [v2::SIGNATURE, &bytes].concat(),
            _ => summed(&bytes),
        };
        let whole = parse(&input);
        let mut known = Ok(Parsed::Partial);
        for cut in 0..=input.len() {
            let now = parse(&input[..cut]);
            prop_assert!(known == Ok(Parsed::Partial) || known == now, "{:?} became {:?}", known, now);
            known = now;
        }
        prop_assert_eq!(known, whole);
    }
}
