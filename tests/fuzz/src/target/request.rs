//! Heads of HTTP/1 requests: read however they are cut, framed once, forwarded and read again.
//!
//! ```text
//! input = limits (1 byte) head
//! ```

use std::sync::Arc;

use lb::{
    l7::{
        headers::FieldKind,
        http1::{
            Body, Forwarding, HeadLimits, Parsed, RequestHead, Upgrades, Version, client_address,
            encode_error, encode_request,
        },
        path,
    },
    model::reason::CloseReason,
};

use super::Target;
use crate::bytes::{cuts, show};

/// See the module.
pub const TARGET: Target = Target { name: "request", run, seeds, words };

/// What a backend's reader takes: more than any head that was read within its own limits becomes.
pub(super) const WIDE: HeadLimits =
    HeadLimits { bytes: 1 << 20, fields: HeadLimits::FIELDS_MAX, target: 1 << 16, method: 64 };
/// Limits small enough to be met.
const NARROW: HeadLimits = HeadLimits { bytes: 512, fields: 8, target: 64, method: 8 };

/// The limits that a byte stands for.
pub(super) fn limits(byte: u8) -> HeadLimits {
    if byte & 1 == 0 { HeadLimits::default() } else { NARROW }
}

fn run(input: &[u8]) {
    let Some((&first, input)) = input.split_first() else { return };
    let limits = limits(first);
    let mut head = RequestHead::default();
    let whole = head.parse(input, &limits);
    by_pieces(input, &limits, whole);
    match whole {
        Ok(Parsed::Complete) => accepted(input, &head),
        Ok(Parsed::Partial) => {}
        Err(reason) => refused(reason),
    }
}

/// The answer never depends on how the head was cut, and comes once.
fn by_pieces(input: &[u8], limits: &HeadLimits, whole: Result<Parsed, CloseReason>) {
    let mut early = RequestHead::default();
    let mut is_over = false;
    for cut in cuts(input.len()) {
        let got = early.parse(&input[..cut], limits);
        assert!(
            got == whole || (got == Ok(Parsed::Partial) && !is_over),
            "{got:?}, whole {whole:?}: {}",
            show(input)
        );
        is_over = got != Ok(Parsed::Partial);
    }
}

/// A refusal that has a status can be said.
fn refused(reason: CloseReason) {
    let mut answer = Vec::new();
    encode_error(&mut answer, reason, b"", false, true);
    let status = format!("HTTP/1.1 {} ", reason.status());
    assert!(reason.status() == 0 || answer.starts_with(status.as_bytes()), "{reason:?}");
}

fn accepted(input: &[u8], head: &RequestHead) {
    assert!(head.len() <= input.len());
    let input = &input[..head.len()];
    assert!(input.ends_with(b"\r\n\r\n"), "{}", show(input));
    assert!(!matches!(head.body(), Body::UntilClose | Body::Length(0)), "{:?}: {}", head.body(), show(input));
    a_path_is_its_own_normal_form(input, head);

    let forwarding = Forwarding {
        client: [192, 0, 2, 7].into(),
        scheme: "http",
        authority: b"10.0.0.1:80",
        port: 80,
        is_trusted: false,
        says_forwarded: true,
        request_id: [1, 2],
    };
    let mut out = Vec::new();
    encode_request(&mut out, input, head, &forwarding, None, None);
    let mut again = RequestHead::default();
    assert_eq!(again.parse(&out, &WIDE), Ok(Parsed::Complete), "{} from {}", show(&out), show(input));
    assert_eq!(again.len(), out.len(), "{} from {}", show(&out), show(input));
    same_meaning(input, head, &out, &again);
    plain_reading(input, head, &out);
    switched(input, head, &forwarding);
    let client = client_address(head, input, forwarding.client, |_| true);
    assert!(
        client == forwarding.client
            || head.fields().iter().any(|field| field.kind == FieldKind::ForwardedFor)
    );
}

/// A backend is asked for another protocol only where the client asks, behind whose head nothing of HTTP comes; and for nothing
/// but what is passed on.
fn switched(input: &[u8], head: &RequestHead, forwarding: &Forwarding<'_>) {
    let upgrades = Upgrades::new(Arc::from([Arc::from("websocket"), Arc::from("x/1")]));
    if !upgrades.is_offered(head, input) {
        return;
    }
    assert!(head.version() == Version::Http11 && head.body() == Body::None, "{}", show(input));
    let mut out = Vec::new();
    encode_request(&mut out, input, head, forwarding, None, Some(&upgrades));
    let mut again = RequestHead::default();
    assert_eq!(again.parse(&out, &WIDE), Ok(Parsed::Complete), "{} from {}", show(&out), show(input));
    assert!(again.asks_upgrade() && upgrades.is_offered(&again, &out), "{}", show(&out));
    let fields = plain_fields(&out);
    let value = |name: &str| {
        fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_ascii_lowercase())
    };
    assert_eq!(
        (count(&fields, "connection"), value("connection").as_deref()),
        (1, Some("upgrade")),
        "{}",
        show(&out)
    );
    let offer = value("upgrade").unwrap_or_default();
    assert!(
        count(&fields, "upgrade") == 1 && offer.split(", ").all(|it| it == "websocket" || it == "x/1"),
        "{}",
        show(&out)
    );
}

fn a_path_is_its_own_normal_form(input: &[u8], head: &RequestHead) {
    let forwarded = head.forwarded_path(input);
    if forwarded == b"*" {
        assert_eq!(head.path(input), b"*");
        return;
    }
    let (mut again, mut routed) = (Vec::new(), Vec::new());
    path::normalise(forwarded, &mut again, &mut routed).expect("a path that was accepted");
    assert_eq!(show(&again), show(forwarded));
    assert_eq!(show(&routed), show(head.path(input)));
    assert!(routed.starts_with(b"/") && !routed.windows(2).any(|pair| pair == b"//"), "{}", show(&routed));
    assert!(routed.split(|&byte| byte == b'/').all(|segment| segment != b".." && segment != b"."));
}

/// The backend reads what we read.
fn same_meaning(input: &[u8], head: &RequestHead, out: &[u8], again: &RequestHead) {
    let parts = |head: &RequestHead, buf: &[u8]| {
        [head.method(buf), head.forwarded_path(buf), head.path(buf), head.query(buf)].map(show)
    };
    assert_eq!(parts(again, out), parts(head, input));
    assert_eq!(again.body(), head.body(), "{} from {}", show(out), show(input));
    assert_eq!(again.expects_continue(), head.expects_continue());
    assert_eq!((again.is_head(), again.is_idempotent()), (head.is_head(), head.is_idempotent()));
    assert!(again.keep_alive(), "{}", show(out));
    if head.authority(input).is_empty() {
        assert_eq!(again.authority(out), b"10.0.0.1:80");
    } else {
        assert_eq!(show(again.authority(out)), show(head.authority(input)));
        assert_eq!(show(again.host(out)), show(head.host(input)));
    }
    assert!(again.fields().iter().all(|field| !field.is_hop));
}

/// Fields as the plainest of readers sees them: lines, each up to its first colon.
pub(super) fn plain_fields(head: &[u8]) -> Vec<(String, String)> {
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let lines = text.strip_suffix("\r\n\r\n").expect("a whole head").split("\r\n").skip(1);
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a field");
            (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned())
        })
        .collect()
}

/// How many of these a head has.
pub(super) fn count(fields: &[(String, String)], name: &str) -> usize {
    fields.iter().filter(|(other, _)| other == name).count()
}

/// A reader that shares nothing with ours finds one host, one framing, nothing of hops, and all else in its order.
fn plain_reading(input: &[u8], head: &RequestHead, out: &[u8]) {
    let fields = plain_fields(out);
    assert_eq!(count(&fields, "host"), 1, "{}", show(out));
    let framing = (count(&fields, "content-length"), count(&fields, "transfer-encoding"));
    let has_body = head.body() != Body::None;
    assert!(
        framing.0 + framing.1 == usize::from(has_body) || (!has_body && framing == (1, 0)),
        "{}",
        show(out)
    );
    for (name, value) in &fields {
        match (&**name, head.body()) {
            ("content-length", Body::Length(length)) => assert_eq!(*value, length.to_string()),
            ("content-length", _) => assert_eq!(value, "0"),
            ("transfer-encoding", _) => assert_eq!(value, "chunked"),
            _ => {}
        }
        let is_hop = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "proxy"];
        assert!(!is_hop.contains(&&**name), "{}", show(out));
    }
    let kept = head
        .fields()
        .iter()
        .filter(|field| !field.is_hop && matches!(field.kind, FieldKind::Plain | FieldKind::Protected));
    let kept: Vec<_> = kept
        .map(|field| {
            let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
            (text(field.name.of(input)).to_ascii_lowercase(), text(field.value.of(input)))
        })
        .collect();
    let ours = [
        "host",
        "expect",
        "content-length",
        "transfer-encoding",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "forwarded",
        "x-request-id",
    ];
    let passed = fields.into_iter().filter(|(name, _)| !ours.contains(&&**name));
    let mut passed: Vec<_> = passed.collect();
    let via = passed.pop().expect("our own Via");
    assert!(via.0 == "via" && via.1.ends_with(" lb"), "{}", show(out));
    assert_eq!(passed, kept, "{} from {}", show(out), show(input));
}

fn seeds() -> Vec<Vec<u8>> {
    let heads = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /articles/2026?page=2 HTTP/1.1\r\nHost: www.example.com:8080\r\nAccept: */*\r\nCookie: a=b\r\n\
         Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket\r\nUpgrade: x/1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1, ::1\r\nX-Forwarded-For: x\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\r\nGET http://b.example./x/../y?z HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /%61/%2e%2E/b%2fc//d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nX:\tspaced \r\nEmpty:\r\nX-Forwarded-For: 203.0.113.9\r\n\
         X_Forwarded_For: evil\r\nVia: 1.0 fred\r\nForwarded: for=evil\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n folded\r\n\r\n",
    ];
    heads.iter().flat_map(|head| [0, 1].map(|first| [&[first], head.as_bytes()].concat())).collect()
}

/// What heads are made of, those of responses too.
pub(super) fn words() -> Vec<Vec<u8>> {
    [
        "GET ",
        "HEAD ",
        "OPTIONS ",
        "POST ",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "HTTP/1.1 200 OK\r\n",
        "\r\n",
        "\r\n\r\n",
        "Host: a\r\n",
        "Content-Length: ",
        "Transfer-Encoding: ",
        "chunked",
        "Connection: ",
        "close",
        "keep-alive",
        "Expect: 100-continue\r\n",
        "Via: ",
        "X-Forwarded-For: ",
        "X-Forwarded-Host: ",
        "Forwarded: ",
        "Upgrade: ",
        "TE: ",
        "Trailer: ",
        "Proxy-Connection: ",
        "Content_Length: ",
        "http://",
        "https://",
        "%2e",
        "%2F",
        "%5C",
        "/../",
        "/./",
        "//",
        "?",
        "#",
        "[::1]",
        ":80",
        "9223372036854775807",
        "0",
        "100",
        "204",
        "304",
        " ",
        "\t",
        ",",
        ";",
        "_",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}
