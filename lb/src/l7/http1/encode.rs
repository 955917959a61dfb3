//! Heads out: what came in, less what was meant for us, plus what we vouch for, framed once and by us.

use super::{
    Body, Field, RequestHead, ResponseHead, Span, Version,
    forwarding::{Forwarding, push_forwarding},
    framing::Framing,
    upgrade::Upgrades,
};
use crate::l7::{
    edit::{FieldEdits, RequestEdits},
    headers::FieldKind,
};

/// How a response goes to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downstream {
    /// The client's version.
    pub version: Version,
    /// The connection ends after this response.
    pub close: bool,
    /// How the body is framed; see [`crate::l7::exchange::downstream_framing`].
    pub body: Body,
}

/// Appends the head that a backend gets for `head`, which was parsed from `buf`.
///
/// Always origin-form (or `*`) and HTTP/1.1 with a persistent connection, as RFC 9112, 3.2.1 and 9.3 have it.
/// `upgrades`: the backend is asked for another protocol, of those that the client offers and we pass on.
pub fn encode_request(
    out: &mut Vec<u8>,
    buf: &[u8],
    head: &RequestHead,
    forwarding: &Forwarding<'_>,
    edits: Option<&RequestEdits>,
    upgrades: Option<&Upgrades>,
) {
    out.reserve(head.len() + 320);
    out.extend_from_slice(head.method(buf));
    out.push(b' ');
    match edits.and_then(|edits| edits.path.as_ref()) {
        Some(rewrite) => rewrite.push(out, head.path(buf), head.forwarded_path(buf)),
        None => out.extend_from_slice(head.forwarded_path(buf)),
    }
    out.extend_from_slice(head.query(buf));
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    let authority = head.authority(buf);
    out.extend_from_slice(match edits.and_then(|edits| edits.host.as_deref()) {
        Some(host) => host,
        None if authority.is_empty() => forwarding.authority,
        None => authority,
    });
    out.extend_from_slice(b"\r\n");

    copy_fields(out, buf, head.fields(), edits.and_then(|edits| edits.fields.as_ref()), |kind| match kind {
        FieldKind::Plain | FieldKind::Protected => true,
        FieldKind::Expect => head.expects_continue(),
        _ => false,
    });

    push_forwarding(out, buf, head, forwarding);
    push_via(out, head.version());
    if let Some(upgrades) = upgrades {
        upgrades.push_offer(out, head, buf);
    } else if head.takes_trailers() {
        out.extend_from_slice(b"Connection: te\r\nTE: trailers\r\n");
    }
    match head.body() {
        Body::None if head.says_empty() => push_length(out, 0),
        // A request never ends with its connection; the arm is there for the type.
        Body::None | Body::UntilClose => {}
        Body::Length(length) => push_length(out, length),
        Body::Chunked => out.extend_from_slice(CHUNKED),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head that the client gets for a final `head`, which was parsed from `buf`.
pub fn encode_response(
    out: &mut Vec<u8>,
    buf: &[u8],
    head: &ResponseHead,
    to: &Downstream,
    edits: Option<&FieldEdits>,
) {
    out.reserve(head.len() + 128);
    status_and_fields(out, buf, head, edits);
    push_via(out, head.version());
    match to.body {
        Body::Length(length) => push_length(out, length),
        Body::Chunked => out.extend_from_slice(CHUNKED),
        Body::UntilClose => {}
        // HEAD and 304 say how long the body would be.
        Body::None => match head.described() {
            Some(Framing::Length(length)) => push_length(out, length),
            Some(Framing::Chunked) if to.version == Version::Http11 => out.extend_from_slice(CHUNKED),
            _ => {}
        },
    }
    if to.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if to.version == Version::Http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim head (1xx). Only HTTP/1.1 clients may get one (RFC 9110, 15.2): the caller asks
/// [`crate::l7::exchange::passes_interim`].
pub fn encode_interim(out: &mut Vec<u8>, buf: &[u8], head: &ResponseHead) {
    status_and_fields(out, buf, head, None);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a 101 that was asked for: the last of HTTP that this client gets.
pub fn encode_switch(out: &mut Vec<u8>, buf: &[u8], head: &ResponseHead, edits: Option<&FieldEdits>) {
    status_and_fields(out, buf, head, edits);
    push_via(out, head.version());
    out.extend_from_slice(b"Connection: upgrade\r\n");
    for field in head.fields().iter().filter(|field| field.kind == FieldKind::Upgrade) {
        out.extend_from_slice(b"Upgrade: ");
        out.extend_from_slice(field.value.of(buf));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The interim response that we send for a backend which is slow to.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";

fn status_and_fields(out: &mut Vec<u8>, buf: &[u8], head: &ResponseHead, edits: Option<&FieldEdits>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason(buf));
    out.extend_from_slice(b"\r\n");
    copy_fields(out, buf, head.fields(), edits, |kind| {
        !matches!(
            kind,
            FieldKind::Hop
                | FieldKind::Te
                | FieldKind::Connection
                | FieldKind::Upgrade
                | FieldKind::ContentLength
                | FieldKind::TransferEncoding
                | FieldKind::Lookalike
                | FieldKind::FramingLookalike
        )
    });
}

/// Copies the lines of kept fields: runs of canonical lines at once, others written anew as `name: value`. What the edits
/// drop is left out, what they write comes behind.
fn copy_fields(
    out: &mut Vec<u8>,
    buf: &[u8],
    fields: &[Field],
    edits: Option<&FieldEdits>,
    keeps: impl Fn(FieldKind) -> bool,
) {
    let mut run = Span::default();
    for field in fields {
        if field.is_hop || !keeps(field.kind) || edits.is_some_and(|edits| edits.drops(field.name.of(buf))) {
            continue;
        }
        if field.is_canonical(buf) {
            if run.end != field.name.start {
                out.extend_from_slice(run.of(buf));
                run.start = field.name.start;
            }
            run.end = field.line_end;
        } else {
            out.extend_from_slice(run.of(buf));
            run = Span::default();
            out.extend_from_slice(field.name.of(buf));
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value.of(buf));
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(run.of(buf));
    if let Some(edits) = edits {
        out.extend_from_slice(&edits.lines);
    }
}

/// The version is the received one. Source: RFC 9110, 7.6.3.
fn push_via(out: &mut Vec<u8>, received: Version) {
    out.extend_from_slice(match received {
        Version::Http10 => b"Via: 1.0 lb\r\n",
        Version::Http11 => b"Via: 1.1 lb\r\n",
    });
}

fn push_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::l7::{
        exchange::downstream_framing,
        http1::{HeadLimits, Parsed},
    };

    const LIMITS: HeadLimits = HeadLimits::new(32 << 10, 100);

    const FORWARDING: Forwarding<'_> = Forwarding {
        client: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
        scheme: "http",
        authority: b"10.0.0.1:80",
        port: 80,
        is_trusted: false,
        says_forwarded: false,
        request_id: [1, 2],
    };
    /// What stands before `Via` for a host `a`.
    const TOLD: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
         X-Forwarded-Port: 80\r\nX-Request-Id: 00000000000000010000000000000002\r\n";

    fn forward(input: &str) -> String {
        let mut head = RequestHead::default();
        assert_eq!(head.parse(input.as_bytes(), &LIMITS), Ok(Parsed::Complete), "{input:?}");
        let mut out = Vec::new();
        encode_request(&mut out, input.as_bytes(), &head, &FORWARDING, None, None);
        String::from_utf8(out).unwrap()
    }

    fn reply(input: &str, request_was_head: bool, version: Version, close: bool) -> String {
        let mut head = ResponseHead::default();
        assert_eq!(
            head.parse(input.as_bytes(), &LIMITS, request_was_head),
            Ok(Parsed::Complete),
            "{input:?}"
        );
        let to = Downstream { version, close, body: downstream_framing(&head, version) };
        let mut out = Vec::new();
        encode_response(&mut out, input.as_bytes(), &head, &to, None);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_on_its_way() {
        let got = forward(
            "POST /a?b HTTP/1.1\r\nAccept: */*\r\nHost: Example.com:8080\r\nX:\tspaced \r\nVia: 1.0 fred\r\n\
             X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
             X-Forwarded-Port: 1\r\nForwarded: for=evil\r\nX_Forwarded_For: evil\r\nx-forwarded-for: 10.1.1.1\r\n\
             Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(
            got,
            "POST /a?b HTTP/1.1\r\nHost: Example.com:8080\r\nAccept: */*\r\nX: spaced\r\nVia: 1.0 fred\r\n\
             Expect: 100-continue\r\nX-Forwarded-For: 192.0.2.7\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: Example.com:8080\r\nX-Forwarded-Port: 80\r\n\
             X-Request-Id: 00000000000000010000000000000002\r\nVia: 1.1 lb\r\nContent-Length: 5\r\n\r\n"
        );
    }

    #[test]
    fn row_17_the_targets_authority_is_the_host() {
        let got = forward("GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert!(got.starts_with("GET /x HTTP/1.1\r\nHost: b.example\r\n"), "{got}");
        assert!(!got.contains("a.example"), "{got}");
    }

    #[test]
    fn hop_by_hop_fields_stay_here() {
        let got = forward(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine, upgrade\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nProxy: http://evil\r\nTE: trailers\r\n\
             Trailer: X\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Mine: 1\r\nx-mine: 2\r\nX-Kept: 3\r\n\r\n",
        );
        let ours = "Connection: te\r\nTE: trailers\r\n";
        assert_eq!(got, format!("GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 3\r\n{TOLD}Via: 1.1 lb\r\n{ours}\r\n"));
    }

    #[test]
    fn trailers_are_asked_for_where_the_client_takes_them() {
        for (version, te, expected) in [
            ("1.1", "TE: trailers\r\n", true),
            ("1.1", "te: gzip;q=0.5, Trailers\r\n", true),
            ("1.1", "te: gzip\r\nTe: trailers\r\n", true),
            ("1.1", "TE: gzip\r\n", false),
            ("1.1", "TE: xtrailers\r\n", false),
            ("1.1", "TE:\r\n", false),
            ("1.0", "TE: trailers\r\n", false),
        ] {
            let got = forward(&format!("GET / HTTP/{version}\r\nHost: a\r\n{te}\r\n"));
            assert_eq!(got.contains("\r\nConnection: te\r\nTE: trailers\r\n\r\n"), expected, "{te:?}");
            assert_eq!(got.to_ascii_lowercase().matches("te: ").count(), usize::from(expected), "{got}");
        }
    }

    #[test]
    fn row_30_protected_fields_are_not_strippable() {
        let got = forward(
            "POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nAuthorization: x\r\nCookie: c\r\n\
             Content-Length: 5\r\nContent-Type: t\r\nX-Free: f\r\nConnection: close, X-Forwarded-For, Authorization, \
             Host, Content-Length, Cookie, Content-Type, X-Forwarded-Proto, Via, X-Free\r\n\r\n",
        );
        for kept in [
            "Host: a\r\n",
            "X-Forwarded-For: 192.0.2.7\r\n",
            "X-Forwarded-Proto: http\r\n",
            "Authorization: x\r\n",
            "Cookie: c\r\n",
            "Content-Type: t\r\n",
            "Content-Length: 5\r\n",
            "Via: 1.1 lb\r\n",
        ] {
            assert!(got.contains(kept), "{kept:?} missing in {got}");
        }
        assert!(!got.contains("X-Free") && !got.contains("Connection"), "{got}");
    }

    #[test]
    fn an_old_client_gets_a_host_made_for_it() {
        let got = forward("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(
            got,
            "GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Port: 80\r\nX-Request-Id: 00000000000000010000000000000002\r\nVia: 1.0 lb\r\n\r\n"
        );
    }

    #[test]
    fn bodies_are_framed_once_and_by_us() {
        let with = |line: &str| forward(&format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n"));
        assert!(with("content-length:  7\r\n").ends_with("Content-Length: 7\r\n\r\n"));
        assert!(with("Content-Length: 0\r\n").ends_with("Content-Length: 0\r\n\r\n"));
        assert!(with("Transfer-Encoding: Chunked\r\n").ends_with("Transfer-Encoding: chunked\r\n\r\n"));
        assert!(with("").ends_with("Via: 1.1 lb\r\n\r\n"));
    }

    #[test]
    fn a_response_on_its_way() {
        let length = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\nConnection: keep-alive, X-Hop\r\n\
             Keep-Alive: timeout=5\r\nX-Hop: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
        let kept = "HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nVia: 1.1 lb\r\n\
             Content-Length: 5\r\n";
        assert_eq!(reply(length, false, Version::Http11, false), format!("{kept}\r\n"));
        assert_eq!(reply(length, true, Version::Http11, false), format!("{kept}\r\n"));
        assert_eq!(reply(length, false, Version::Http11, true), format!("{kept}Connection: close\r\n\r\n"));
        assert_eq!(
            reply(length, false, Version::Http10, false),
            format!("{kept}Connection: keep-alive\r\n\r\n")
        );

        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\nVia: 1.1 lb\r\n";
        let framed = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(reply(chunked, false, Version::Http11, false), framed);
        assert_eq!(reply(chunked, true, Version::Http11, false), framed);
        assert_eq!(reply(chunked, false, Version::Http10, true), format!("{head}Connection: close\r\n\r\n"));

        let until_close = "HTTP/1.0 200 Fine by me\r\n\r\n";
        let head = "HTTP/1.1 200 Fine by me\r\nVia: 1.0 lb\r\n";
        assert_eq!(
            reply(until_close, false, Version::Http11, false),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n")
        );
        assert_eq!(
            reply(until_close, false, Version::Http10, true),
            format!("{head}Connection: close\r\n\r\n")
        );

        let none = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            reply(none, false, Version::Http11, false),
            "HTTP/1.1 204 No Content\r\nVia: 1.1 lb\r\n\r\n"
        );
        let unchanged = "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n";
        assert_eq!(
            reply(unchanged, false, Version::Http11, false),
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\nVia: 1.1 lb\r\nContent-Length: 9\r\n\r\n"
        );
    }

    #[test]
    fn interims_are_passed_bare() {
        let input =
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let mut head = ResponseHead::default();
        head.parse(input.as_bytes(), &LIMITS, false).unwrap();
        assert!(head.is_interim());
        let mut out = Vec::new();
        encode_interim(&mut out, input.as_bytes(), &head);
        assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    }

    #[test]
    fn encoding_twice_needs_no_more_memory() {
        let input = "GET /a/./b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        let mut head = RequestHead::default();
        let mut out = Vec::new();
        let mut sizes = (0..3).map(|_| {
            out.clear();
            head.parse(input.as_bytes(), &LIMITS).unwrap();
            encode_request(&mut out, input.as_bytes(), &head, &FORWARDING, None, None);
            (out.as_ptr(), out.capacity(), head.fields().as_ptr(), head.path(input.as_bytes()).as_ptr())
        });
        let first = sizes.next();
        assert!(sizes.all(|size| Some(size) == first));
    }

    fn field_line() -> impl Strategy<Value = (String, String, &'static str)> {
        let name = prop_oneof![
            "[A-Za-z][a-z0-9-]{0,9}",
            prop::sample::select(vec![
                "Connection",
                "Keep-Alive",
                "TE",
                "Upgrade",
                "Trailer",
                "Cookie",
                "Via",
                "Authorization",
                "X-Forwarded-For",
                "Proxy-Authorization",
                "Forwarded",
                "Date",
                "Server",
            ])
            .prop_map(str::to_owned),
        ];
        let value =
            prop_oneof!["[a-z][a-z0-9;=-]{0,9}", "[a-z]{1,5}(, [a-z]{1,5}){0,2}", Just(String::new())];
        (name, value, prop::sample::select(vec![": ", ":", ":\t ", ":  "]))
    }

    /// Names and values as httparse reads them, names in lower case.
    fn fields(headers: &[httparse::Header<'_>]) -> Vec<(String, Vec<u8>)> {
        headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.to_vec())).collect()
    }

    fn edits() -> crate::config::HeaderEdits {
        crate::config::HeaderEdits {
            set: vec![("Server".into(), "mine".into())],
            add: vec![("X-Added".into(), "1".into())],
            remove: vec!["cookie".into()],
        }
    }

    fn is_ours(name: &str) -> bool {
        matches!(
            name,
            "host"
                | "via"
                | "content-length"
                | "transfer-encoding"
                | "x-forwarded-for"
                | "x-forwarded-proto"
                | "x-forwarded-host"
                | "x-forwarded-port"
                | "x-request-id"
                | "connection"
        )
    }

    fn is_hop(name: &str) -> bool {
        matches!(name, "keep-alive" | "te" | "upgrade" | "trailer" | "proxy-authorization" | "forwarded")
    }

    proptest! {
        /// What we forward is, to another parser, the same request less what was for us; framed exactly once.
        #[test]
        fn forwarded_heads_mean_the_same(
            method in "[A-Z]{1,8}",
            path in "(/[a-z0-9=-]{0,6}){1,3}(\\?[a-z/.&%]{0,9})?",
            lines in prop::collection::vec(field_line(), 0..12),
            framing in prop::sample::select(vec!["", "Content-Length: 0\r\n", "Content-Length: 17\r\n",
                "Transfer-Encoding: chunked\r\n"]),
        ) {
            prop_assume!(method != "CONNECT" && !path.contains("//"));
            let lines_text: String =
                lines.iter().map(|(name, value, colon)| format!("{name}{colon}{value}\r\n")).collect();
            let input = format!("{method} {path} HTTP/1.1\r\n{lines_text}{framing}Host: h.example\r\n\r\n");
            let mut head = RequestHead::default();
            prop_assume!(head.parse(input.as_bytes(), &LIMITS).is_ok());
            let got = forward(&input);

            let (mut a, mut b) = ([httparse::EMPTY_HEADER; 64], [httparse::EMPTY_HEADER; 64]);
            let (mut sent, mut received) = (httparse::Request::new(&mut a), httparse::Request::new(&mut b));
            sent.parse(input.as_bytes()).unwrap();
            prop_assert_eq!(received.parse(got.as_bytes()).unwrap(), httparse::Status::Complete(got.len()));
            prop_assert_eq!((received.method, received.path, received.version), (sent.method, sent.path, Some(1)));

            let named: Vec<_> = fields(sent.headers)
                .into_iter()
                .filter(|(name, _)| name == "connection")
                .flat_map(|(_, value)| {
                    String::from_utf8(value).unwrap().split(", ").map(str::to_owned).collect::<Vec<_>>()
                })
                .collect();
            let protected = |name: &str| matches!(name, "cookie" | "authorization" | "date");
            let mut expected = fields(sent.headers);
            expected.retain(|(name, _)| {
                !is_ours(name) && !is_hop(name) && (protected(name) || !named.contains(name))
            });
            let mut kept = fields(received.headers);
            kept.retain(|(name, _)| !is_ours(name));
            prop_assert_eq!(kept, expected);

            let count = |wanted: &str| fields(received.headers).iter().filter(|(name, _)| name == wanted).count();
            prop_assert_eq!(
                count("content-length") + count("transfer-encoding"),
                usize::from(!framing.is_empty())
            );
            prop_assert_eq!((count("host"), count("connection"), count("x-forwarded-for")), (1, 0, 1));

            // With edits the rest stays what it was.
            let edits = RequestEdits { host: None, path: None, fields: FieldEdits::new(&edits()) };
            let mut out = Vec::new();
            encode_request(&mut out, input.as_bytes(), &head, &FORWARDING, Some(&edits), None);
            let mut c = [httparse::EMPTY_HEADER; 64];
            let mut edited = httparse::Request::new(&mut c);
            edited.parse(&out).unwrap();
            let mut kept = fields(received.headers);
            kept.retain(|(name, _)| !matches!(&**name, "server" | "cookie"));
            let mut got_edited = fields(edited.headers);
            let added = [("server".to_owned(), b"mine".to_vec()), ("x-added".to_owned(), b"1".to_vec())];
            got_edited.retain(|field| !added.contains(field));
            prop_assert_eq!(got_edited.len() + 2, edited.headers.len());
            prop_assert_eq!(got_edited, kept);

            // We would take it ourselves, and read the same into it.
            let mut again = RequestHead::default();
            prop_assert_eq!(again.parse(got.as_bytes(), &LIMITS), Ok(Parsed::Complete));
            prop_assert_eq!(again.body(), head.body());
            prop_assert_eq!(again.path(got.as_bytes()), head.path(input.as_bytes()));
        }

        /// The same for responses.
        #[test]
        fn replied_heads_mean_the_same(
            status in 200u16..600,
            lines in prop::collection::vec(field_line(), 0..12),
            framing in prop::sample::select(vec!["", "Content-Length: 0\r\n", "Content-Length: 17\r\n",
                "Transfer-Encoding: chunked\r\n"]),
            (was_head, old, close) in any::<(bool, bool, bool)>(),
        ) {
            let lines_text: String =
                lines.iter().map(|(name, value, colon)| format!("{name}{colon}{value}\r\n")).collect();
            let input = format!("HTTP/1.1 {status} So\r\n{lines_text}{framing}\r\n");
            let mut head = ResponseHead::default();
            prop_assume!(head.parse(input.as_bytes(), &LIMITS, was_head).is_ok());
            let version = if old { Version::Http10 } else { Version::Http11 };
            let framed = downstream_framing(&head, version);
            let close = close || framed == Body::UntilClose;
            let got = reply(&input, was_head, version, close);

            let mut again = ResponseHead::default();
            prop_assert_eq!(again.parse(got.as_bytes(), &LIMITS, was_head), Ok(Parsed::Complete));
            prop_assert_eq!((again.status(), again.reason(got.as_bytes())), (status, b"So".as_slice()));
            prop_assert_eq!(again.body(), framed);
            prop_assert_eq!(again.keep_alive(), !close);
            let framings = again.fields().iter().filter(|field| {
                matches!(field.kind, FieldKind::ContentLength | FieldKind::TransferEncoding)
            });
            prop_assert!(framings.count() <= 1);
        }
    }
}
