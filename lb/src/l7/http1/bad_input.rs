//! Hostile heads and the right answer: one test per class of input. Each input is fed whole and byte by byte, and
//! must be refused for the same reason either way. Chunked bodies have their rows in `body`.

use proptest::prelude::*;

use super::{
    Body, HeadLimits, Parsed, RequestHead, ResponseHead, encode_error,
    scan::{Stop, scan_request, scan_response},
};
use crate::model::reason::CloseReason::{self, *};

/// Limits small enough to be met in a test.
const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 8, target: 128, method: 32 };

/// The outcome of a head whole, checked to be that of every way to receive it bit by bit.
fn request(input: &[u8]) -> Result<RequestHead, CloseReason> {
    let mut head = RequestHead::default();
    let whole = head.parse(input, &LIMITS);
    let mut early = RequestHead::default();
    let first = (0..=input.len())
        .map(|end| early.parse(&input[..end], &LIMITS))
        .find(|got| *got != Ok(Parsed::Partial));
    assert_eq!(first.unwrap_or(Ok(Parsed::Partial)), whole, "{:?}", String::from_utf8_lossy(input));
    match whole? {
        Parsed::Complete => Ok(head),
        Parsed::Partial => panic!("not whole: {:?}", String::from_utf8_lossy(input)),
    }
}

/// Refused for this reason, with this status on the wire.
fn refused(input: impl AsRef<[u8]>, reason: CloseReason, status: u16) {
    let input = input.as_ref();
    assert_eq!(request(input).err(), Some(reason), "{:?}", String::from_utf8_lossy(input));
    let mut answer = Vec::new();
    encode_error(&mut answer, reason, b"", false, true);
    assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{reason:?}");
}

/// A POST with these lines, each of which ends itself.
fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn row_01_length_and_coding() {
    refused(post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), FramingConflict, 400);
    refused(post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), FramingConflict, 400);
    refused(post("transfer-encoding: x\r\nX: y\r\nCONTENT-LENGTH: z\r\n"), FramingConflict, 400);
}

#[test]
fn row_02_two_lengths() {
    refused(post("Content-Length: 5\r\nContent-Length: 6\r\n"), ContentLength, 400);
    refused(post("Content-Length: 5\r\nContent-Length: 5\r\n"), ContentLength, 400);
    refused(post("Content-Length: 5, 6\r\n"), ContentLength, 400);
    refused(post("Content-Length: 5, 5\r\n"), ContentLength, 400);
}

#[test]
fn row_03_length_that_is_no_number() {
    for value in ["+5", "-1", "0x5", "1_0", "5 5", "", " ", "5.0", "5;", "\u{665}", "a"] {
        refused(post(&format!("Content-Length: {value}\r\n")), ContentLength, 400);
    }
    for value in ["9223372036854775808", "18446744073709551616", "99999999999999999999999999999"] {
        refused(post(&format!("Content-Length: {value}\r\n")), ContentLength, 400);
    }
    let head = request(post("Content-Length: 9223372036854775807\r\n").as_bytes()).unwrap();
    assert_eq!(head.body(), Body::Length(i64::MAX as u64));
}

#[test]
fn row_04_leading_zeros() {
    refused(post("Content-Length: 005\r\n"), ContentLength, 400);
    refused(post("Content-Length: 00\r\n"), ContentLength, 400);
    assert_eq!(request(post("Content-Length: 0\r\n").as_bytes()).unwrap().body(), Body::None);
}

#[test]
fn row_05_unknown_codings() {
    for value in ["xchunked", "identity", "gzip", "gzip, chunked", "chunkedchunked"] {
        refused(post(&format!("Transfer-Encoding: {value}\r\n")), UnknownCoding, 501);
    }
    for value in ["chunked, gzip", "chunked, chunked", "chunked, identity", "gzip, identity"] {
        refused(post(&format!("Transfer-Encoding: {value}\r\n")), TransferEncoding, 400);
    }
    let head = request(post("Transfer-Encoding:\t CHUNKED \r\n").as_bytes()).unwrap();
    assert_eq!(head.body(), Body::Chunked);
}

#[test]
fn row_06_malformed_codings() {
    for value in [",chunked", "chunked,", "", " ", "chunked;q=1", "\"chunked\"", "chun ked", "chunked ,,"] {
        refused(post(&format!("Transfer-Encoding: {value}\r\n")), TransferEncoding, 400);
    }
    refused(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), TransferEncoding, 400);
    refused(post("Transfer-Encoding: chunked\x0b\r\n"), HeaderSyntax, 400);
    refused(post("Transfer-Encoding: chunked\0\r\n"), HeaderSyntax, 400);
}

#[test]
fn row_07_coding_in_http_1_0() {
    refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncoding, 400);
}

#[test]
fn row_08_underscores() {
    refused(post("Transfer_Encoding: chunked\r\n"), HeaderSyntax, 400);
    refused(post("Content_Length: 5\r\n"), HeaderSyntax, 400);
}

#[test]
fn row_09_space_before_colon() {
    refused(post("Content-Length : 5\r\n"), HeaderSyntax, 400);
    refused(post("X\t: 5\r\n"), HeaderSyntax, 400);
    refused("GET / HTTP/1.1\r\nHost : a\r\n\r\n", HeaderSyntax, 400);
}

#[test]
fn row_10_folding() {
    refused(post("X: a\r\n b\r\n"), HeaderSyntax, 400);
    refused(post("X: a\r\n\tTransfer-Encoding: chunked\r\n"), HeaderSyntax, 400);
    refused(post("X: a\r\n \r\n"), HeaderSyntax, 400);
}

#[test]
fn row_11_bare_cr() {
    refused(post("X: a\rb\r\n"), HeaderSyntax, 400);
    refused(post("X: a\r\r\n"), HeaderSyntax, 400);
    refused(post("X\r: a\r\n"), HeaderSyntax, 400);
    refused(post("X: a\r\n\rY: b\r\n"), HeaderSyntax, 400);
    refused("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
    refused("GET / HTTP/1.1\rHost: a\r\n\r\n", RequestLine, 400);
}

#[test]
fn row_12_bare_lf() {
    refused("GET / HTTP/1.1\nHost: a\r\n\r\n", RequestLine, 400);
    refused("GET / HTTP/1.1\r\nHost: a\n\r\n", HeaderSyntax, 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\n", HeaderSyntax, 400);
    refused("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", HeaderSyntax, 400);
    refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
    refused("\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
}

#[test]
fn row_13_control_characters() {
    for byte in (0..=0x1f).chain([0x7f]).filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n')) {
        let byte = char::from(byte);
        refused(post(&format!("X: a{byte}b\r\n")), HeaderSyntax, 400);
        refused(get(&format!("/a{byte}b")), Target, 400);
        refused(get(&format!("/?{byte}")), Target, 400);
    }
    refused(get("/a\tb"), Target, 400);
    refused(get("/\u{e9}"), Target, 400);
    refused(get("/a#b"), Target, 400);
    assert!(request(post("X: \u{e9}\ta\r\n").as_bytes()).is_ok());
}

#[test]
fn row_14_lines_that_are_no_fields() {
    for line in
        ["no colon", "nocolon", ": value", "a b: c", "a(b: c", "\u{e9}: c", "a\0: c", "@: c", "\"a\": c"]
    {
        refused(post(&format!("{line}\r\n")), HeaderSyntax, 400);
    }
}

#[test]
fn row_15_white_space_before_the_first_field() {
    refused("GET / HTTP/1.1\r\n Host: a\r\n\r\n", HeaderSyntax, 400);
    refused("GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", HeaderSyntax, 400);
    refused("GET / HTTP/1.1\r\n\tX: b\r\nHost: a\r\n\r\n", HeaderSyntax, 400);
}

#[test]
fn row_16_host() {
    let with = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
    refused(with(""), Host, 400);
    refused(with("Host: a\r\nHost: a\r\n"), Host, 400);
    refused(with("Host: a\r\nX: b\r\nhost: b\r\n"), Host, 400);
    for value in
        ["", "a, b", "a,b", "u@a", "u:p@a", "a/b", "a?b", "a b", "a:x", "a:99999", "[::1", "a..b", "a%00"]
    {
        refused(with(&format!("Host: {value}\r\n")), Host, 400);
    }
    refused("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Host, 400);
    refused("GET / HTTP/1.0\r\nHost: \r\n\r\n", Host, 400);
    refused("GET http://a/ HTTP/1.1\r\n\r\n", Host, 400);
    assert!(request(b"GET / HTTP/1.0\r\n\r\n").is_ok());
}

#[test]
fn row_17_absolute_form() {
    let input = b"GET HTTP://B.example:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = request(input).unwrap();
    assert_eq!(head.authority(input), b"B.example:81");
    assert_eq!(head.host(input), b"B.example");
    assert_eq!(head.path(input), b"/x");
    assert_eq!(head.query(input), b"?y");
    assert_eq!(head.target(input), b"HTTP://B.example:81/x?y");
    let input = b"GET http://b?y HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = request(input).unwrap();
    assert_eq!((head.path(input), head.query(input)), (b"/".as_slice(), b"?y".as_slice()));
    for target in [
        "http:///x",
        "http://",
        "http:/x",
        "ftp://a/",
        "http://u@b/",
        "a/b",
        "http://b:x/",
        "//",
        "http://a,b/",
    ] {
        match target {
            "//" => assert!(request(get(target).as_bytes()).is_ok()),
            _ => refused(get(target), Target, 400),
        }
    }
}

#[test]
fn row_18_asterisk_and_connect() {
    refused(get("*"), Target, 400);
    refused("OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", Target, 400);
    for target in ["a:443", "[::1]:443"] {
        refused(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"), Method, 501);
    }
    for target in ["/", "*", "http://a/", "a", "[::1]", "a:", "u@a:443"] {
        refused(format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"), Target, 400);
    }
    let input = b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = request(input).unwrap();
    assert_eq!((head.path(input), head.forwarded_path(input)), (b"*".as_slice(), b"*".as_slice()));
    let input = b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(request(input).unwrap().forwarded_path(input), b"*");
}

#[test]
fn row_19_versions() {
    let with = |version: &str| format!("GET / {version}\r\nHost: a\r\n\r\n");
    for version in
        ["HTTP/9.9", "HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/01.1", "HTTP/1.10", "HTTP/1", "HTTP/1,1"]
    {
        refused(with(version), Version, 505);
    }
    for version in ["http/1.1", "HTTP1.1", "HTP/1.1", "HTTP /1.1", "ICY/1.1", "HTTP/1.1 ", "HTTP/1.1 x", ""] {
        refused(with(version), RequestLine, 400);
    }
    refused("GET /\r\n", RequestLine, 400);
    refused("GET /\n", RequestLine, 400);
    refused("GET\r\n\r\n", RequestLine, 400);
    refused("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
    refused("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
    refused("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
    refused(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
    refused("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
    assert!(request(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
}

#[test]
fn row_20_http2_preface() {
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http2Preface, 400);
    refused("PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", Version, 505);
    refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", RequestLine, 400);
}

#[test]
fn row_21_methods() {
    refused(format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(33)), Method, 501);
    refused("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine, 400);
    for method in ["M".repeat(32).as_str(), "PROPFIND", "get", "M-SEARCH"] {
        let input = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = request(input.as_bytes()).unwrap();
        assert_eq!(head.method(input.as_bytes()), method.as_bytes());
        assert!(!head.is_idempotent());
    }
}

#[test]
fn row_22_target_length() {
    let target = |len: usize| format!("/{}", "a".repeat(len - 1));
    assert!(request(get(&target(128)).as_bytes()).is_ok());
    refused(get(&target(129)), TargetTooLong, 414);
    refused(format!("GET {}", target(129)), TargetTooLong, 414);
}

#[test]
fn row_23_head_size_and_fields() {
    let fields = |count: usize| post(&"X: y\r\n".repeat(count - 1));
    assert!(request(fields(8).as_bytes()).is_ok());
    refused(fields(9), TooManyFields, 431);
    let sized = |len: usize| {
        let rest = post("X: \r\n").len();
        post(&format!("X: {}\r\n", "y".repeat(len - rest)))
    };
    assert_eq!(request(sized(1024).as_bytes()).unwrap().len(), 1024);
    refused(sized(1025), HeadTooLarge, 431);
    refused(&sized(2000)[..1024], HeadTooLarge, 431);
    // The body behind a head does not count.
    assert!(request((sized(1024) + "body").as_bytes()).is_ok());
    // What is wrong before the limit is what is answered.
    refused(post(&format!("X\0: {}\r\n", "y".repeat(2000))), HeaderSyntax, 400);
    refused(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\0", "y".repeat(2000)), HeadTooLarge, 431);
}

#[test]
fn row_24_declared_length_beyond_the_limit() {
    let head = request(post("Content-Length: 100\r\n").as_bytes()).unwrap();
    let reader = super::BodyReader::limited(head.body(), 99);
    assert_eq!(reader.err(), Some(BodyTooLarge));
    assert_eq!(BodyTooLarge.status(), 413);
}

#[test]
fn row_30_connection_options_that_are_none() {
    refused(post("Connection: a b\r\n"), HeaderSyntax, 400);
    refused(post(&format!("Connection: {}\r\n", "x,".repeat(33))), HeaderSyntax, 400);
    assert!(request(post(&format!("Connection: {}\r\n", "x,".repeat(32))).as_bytes()).is_ok());
}

#[test]
fn row_32_expectations() {
    refused(post("Expect: 200-ok\r\n"), Expect, 417);
    refused(post("Expect: 100-continue, x\r\n"), Expect, 417);
    refused(post("Expect: \r\n"), Expect, 417);
    refused(post("Expect: 100-continue\r\nExpect: 100-continue\r\n"), Expect, 417);
    assert!(request(post("Expect: 100-Continue\r\n").as_bytes()).unwrap().expects_continue());
    let old = request(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").unwrap();
    assert!(!old.expects_continue());
}

#[test]
fn row_37_paths() {
    for target in ["/..", "/a/../../b", "/a/..%2fb", "/a\\b", "/%00", "/%c0%af", "/%", "http://a/../b"] {
        refused(get(target), Target, 400);
    }
    let input = get("/public/../%61dmin//x?a=/../b");
    let head = request(input.as_bytes()).unwrap();
    assert_eq!(head.path(input.as_bytes()), b"/admin/x");
    assert_eq!(head.forwarded_path(input.as_bytes()), b"/admin//x");
    assert_eq!(head.query(input.as_bytes()), b"?a=/../b");
}

/// The outcome of a response, whole and bit by bit.
fn response(input: &str, request_was_head: bool) -> Result<ResponseHead, CloseReason> {
    let mut head = ResponseHead::default();
    let whole = head.parse(input.as_bytes(), &LIMITS, request_was_head);
    let mut early = ResponseHead::default();
    let first = (0..=input.len())
        .map(|end| early.parse(&input.as_bytes()[..end], &LIMITS, request_was_head))
        .find(|got| *got != Ok(Parsed::Partial));
    assert_eq!(first.unwrap_or(Ok(Parsed::Partial)), whole, "{input:?}");
    assert_eq!(whole?, Parsed::Complete, "{input:?}");
    Ok(head)
}

fn answer(status: &str, lines: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{lines}\r\n")
}

#[test]
fn row_34_responses_without_a_body() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (status, lines, was_head) in [
        ("200 OK", "Content-Length: 5\r\n", true),
        ("200 OK", chunked, true),
        ("204 No Content", "", false),
        ("204 No Content", "Content-Length: 0\r\n", false),
        ("304 Not Modified", "Content-Length: 5\r\n", false),
        ("304 Not Modified", chunked, false),
        ("100 Continue", "", false),
    ] {
        let head = response(&answer(status, lines), was_head).unwrap();
        assert_eq!(head.body(), Body::None, "{status} {lines}");
        assert_eq!(head.is_interim(), status.starts_with('1'));
    }
    for (status, lines) in [
        ("204 No Content", chunked),
        ("204 No Content", "Content-Length: 5\r\n"),
        ("103 Early Hints", chunked),
        ("100 Continue", "Content-Length: 5\r\n"),
    ] {
        assert_eq!(response(&answer(status, lines), false).err(), Some(BadResponse), "{status} {lines}");
    }
}

#[test]
fn row_31_no_tunnel() {
    let switch = answer("101 Switching Protocols", "Upgrade: websocket\r\nConnection: upgrade\r\n");
    // A switch is known as one, so that whoever has not asked for it refuses it (`Upgrades::accepts`).
    assert!(response(&switch, false).is_ok_and(|head| head.is_switch() && !head.is_interim()));
    for lines in [
        "",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "Upgrade: websocket\r\nConnection: close\r\n",
    ] {
        assert_eq!(response(&answer("101 x", lines), false).err(), Some(BadResponse), "{lines:?}");
    }
    // The bytes behind an upgrade request are the next request: it has no body and no tunnel.
    let input = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nGET /next";
    let head = request(input.as_bytes()).unwrap();
    assert_eq!((head.body(), head.len()), (Body::None, input.len() - "GET /next".len()));
}

#[test]
fn row_35_broken_responses() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "X : y\r\n",
        "X: a\r\n b\r\n",
        "X: a\n",
        "X: a\rb\r\n",
        "X: \0\r\n",
        "no colon\r\n",
    ] {
        assert_eq!(response(&answer("200 OK", lines), false).err(), Some(BadResponse), "{lines:?}");
    }
    for status in ["99 x", "600 x", "999 x", "20 x", "2000 x", "2x0 x", "+200 x", " 200 x", "200x", "200 \0"]
    {
        assert_eq!(response(&answer(status, ""), false).err(), Some(BadResponse), "{status:?}");
    }
    for start in ["HTTP/1.2 200 OK", "HTTP/2 200 OK", "http/1.1 200 OK", "\r\nHTTP/1.1 200 OK", "ICY 200 OK"]
    {
        assert_eq!(response(&format!("{start}\r\n\r\n"), false).err(), Some(BadResponse), "{start:?}");
    }
    let chunked_1_0 = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(response(chunked_1_0, false).err(), Some(BadResponse));
    assert_eq!(response(&answer("200 OK", &"X: y\r\n".repeat(9)), false).err(), Some(BadResponse));
    assert_eq!(
        response(&answer("200 OK", &format!("X: {}\r\n", "y".repeat(1024))), false).err(),
        Some(BadResponse)
    );
}

#[test]
fn responses_that_are_meant() {
    let length = response(&answer("200 OK", "Content-Length: 0\r\n"), false).unwrap();
    assert_eq!((length.body(), length.keep_alive()), (Body::Length(0), true));
    let closing = response(&answer("200", "Connection: close\r\nContent-Length: 1\r\n"), false).unwrap();
    assert_eq!((closing.body(), closing.keep_alive()), (Body::Length(1), false));
    let until_close = response("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false).unwrap();
    assert_eq!((until_close.body(), until_close.keep_alive()), (Body::UntilClose, false));
    let kept =
        response("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\n", false).unwrap();
    assert!(kept.keep_alive());
    for (status, reason) in [("200 OK", "OK"), ("200 ", ""), ("200", ""), ("200 N\u{f6}", "N\u{f6}")] {
        let input = answer(status, "Content-Length: 1\r\n");
        let head = response(&input, false).unwrap();
        assert_eq!(head.reason(input.as_bytes()), reason.as_bytes());
    }
}

/// Pieces of which heads are made, sound and unsound.
fn pieces(start: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => Just(b"X-Some: thing\r\n".to_vec()),
        8 => Just(b"\r\n".to_vec()),
        4 => Just(b"Host: a\r\n".to_vec()),
        2 => Just(b"Content-Length: 5\r\n".to_vec()),
        2 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        1 => Just(b"Connection: close, x-some\r\n".to_vec()),
        1 => Just(b"X:\t \r\n".to_vec()),
        2 => "[ \t\r\n:\\x00a/\\x7f\u{e9}]{0,3}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..3),
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..12)).prop_map(move |(sound, pieces)| {
        let mut input = if sound { start.as_bytes().to_vec() } else { start.as_bytes()[..7].to_vec() };
        input.extend(pieces.concat());
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The quick way and the scan agree on what a request head is, and any cut gives the same.
    #[test]
    fn request_outcome_is_one(input in pieces("GET /a HTTP/1.1\r\n")) {
        let mut head = RequestHead::default();
        let whole = head.parse(&input, &LIMITS);
        match scan_request(&input, &LIMITS) {
            Ok(len) => match whole {
                Ok(parsed) => {
                    prop_assert_eq!(parsed, Parsed::Complete);
                    prop_assert_eq!(head.len(), len);
                }
                // The syntax holds; what the fields mean together does not.
                Err(reason) => prop_assert!(
                    matches!(reason, Host | FramingConflict | ContentLength | TransferEncoding),
                    "{:?}", reason
                ),
            },
            Err(Stop::Partial) => prop_assert_eq!(whole, Ok(Parsed::Partial)),
            Err(Stop::Refused(reason)) => prop_assert_eq!(whole, Err(reason)),
        }
        let mut early = RequestHead::default();
        let first = (0..=input.len())
            .map(|end| early.parse(&input[..end], &LIMITS))
            .find(|got| *got != Ok(Parsed::Partial));
        prop_assert_eq!(first.unwrap_or(Ok(Parsed::Partial)), whole);
    }

    /// The same where the request line is what varies.
    #[test]
    fn request_line_outcome_is_one(
        line in "(GET|PRI|OPTIONS|CONNECT| |/|\\*|http://a|:80|HTTP/|1\\.1|1\\.0|2\\.0|9|\r\n|\r|\n|\t|#|%2e|\\.\\.|\\\\|\\?|\\x00|\\x7f|\u{e9}){0,8}",
        is_framed in any::<bool>(),
    ) {
        let input = match is_framed {
            true => format!("GET {line} HTTP/1.1\r\nHost: a\r\n\r\n"),
            false => format!("{line}\r\nHost: a\r\n\r\n"),
        };
        let input = input.as_bytes();
        let mut head = RequestHead::default();
        let whole = head.parse(input, &LIMITS);
        match scan_request(input, &LIMITS) {
            Ok(len) => match whole {
                Ok(parsed) => prop_assert_eq!((parsed, head.len()), (Parsed::Complete, len)),
                Err(reason) => prop_assert!(matches!(reason, Target | Method | Host), "{:?}", reason),
            },
            Err(Stop::Partial) => prop_assert_eq!(whole, Ok(Parsed::Partial)),
            Err(Stop::Refused(reason)) => prop_assert_eq!(whole, Err(reason)),
        }
        let mut early = RequestHead::default();
        let first = (0..=input.len())
            .map(|end| early.parse(&input[..end], &LIMITS))
            .find(|got| *got != Ok(Parsed::Partial));
        prop_assert_eq!(first.unwrap_or(Ok(Parsed::Partial)), whole);
    }

    /// The same for responses.
    #[test]
    fn response_outcome_is_one(input in pieces("HTTP/1.1 200 OK\r\n")) {
        let mut head = ResponseHead::default();
        let whole = head.parse(&input, &LIMITS, false);
        match scan_response(&input, &LIMITS) {
            Ok(len) => prop_assert!(whole == Err(BadResponse) || head.len() == len),
            Err(Stop::Partial) => prop_assert_eq!(whole, Ok(Parsed::Partial)),
            Err(Stop::Refused(reason)) => prop_assert_eq!(whole, Err(reason)),
        }
        let mut early = ResponseHead::default();
        let first = (0..=input.len())
            .map(|end| early.parse(&input[..end], &LIMITS, false))
            .find(|got| *got != Ok(Parsed::Partial));
        prop_assert_eq!(first.unwrap_or(Ok(Parsed::Partial)), whole);
    }

    /// No bytes at all make it panic.
    #[test]
    fn any_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut request = RequestHead::default();
        let _ = request.parse(&input, &LIMITS);
        let mut response = ResponseHead::default();
        let _ = response.parse(&input, &LIMITS, true);
    }
}
