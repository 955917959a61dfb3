//! The cases of `http_desync_guardian`, read from its sources: heads that proxies have disagreed about.
//!
//! What it calls severe we refuse, what it calls compliant we pass on. Where we differ, [`DIFFERENCES`] says why. Whatever is
//! passed on, of its middle tiers too, is written anew, so that no second reader can take it for something else.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test: what does not hold ends it")]

mod cases;

use cases::{Case, Tier};
use lb::l7::http1::{Body, Forwarding, HeadLimits, Parsed, RequestHead, encode_request};

/// Name of the case, and why we differ: all of them are called compliant, and refused by us.
const DIFFERENCES: &[(&str, &str)] = &[
    ("Correct TE OK", CODINGS),
    ("Transfer-Encoding: identity and chunked OK", CODINGS),
    ("Multiple transfer encoding headers in a single request OK", SEVERAL),
    ("TE with custom parameters OK", CODINGS),
    ("Different Transfer-Encoding headers", SEVERAL),
    ("Different Transfer-Encoding headers combined", CODINGS),
    ("Transfer-Encoding with a param: chunked;custom_param", SEVERAL),
    ("Compliant URL", "a raw backslash in the path: some backends take it for a slash"),
    ("International in URI", "bytes beyond ASCII in a target are no URI (RFC 3986, 2)"),
    ("Empty URI", "a request line has a target (RFC 9112, 3)"),
];
const CODINGS: &str =
    "a coding beside `chunked`: we cannot decode it, and a backend that ignores it sees another body: 501";
const SEVERAL: &str = "several Transfer-Encoding lines: readers differ in which of them they take: 400";

/// As the wire would have it; with a host where the case has none, as it is not about that.
fn wire(case: &Case) -> Vec<u8> {
    let mut out = format!("{} {} {}\r\n", case.method, case.uri, case.version).into_bytes();
    if !case.headers.iter().any(|(name, _)| name.trim().eq_ignore_ascii_case("host")) {
        out.extend_from_slice(b"Host: a.test\r\n");
    }
    for (name, value) in &case.headers {
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// What a backend gets; `None`: the head is refused, or never complete.
fn forwarded(input: &[u8]) -> Option<Vec<u8>> {
    let mut head = RequestHead::default();
    if head.parse(input, &HeadLimits::default()) != Ok(Parsed::Complete) || head.len() != input.len() {
        return None;
    }
    let forwarding = Forwarding {
        client: [192, 0, 2, 1].into(),
        scheme: "http",
        authority: b"a.test",
        port: 80,
        is_trusted: false,
        says_forwarded: false,
        request_id: [1, 2],
    };
    let mut out = Vec::new();
    encode_request(&mut out, input, &head, &forwarding, None, None);
    assert_sound(&out, head.body());
    Some(out)
}

/// A reader that shares nothing with ours: one framing at most, no byte that could end a line early, names that are tokens.
fn assert_sound(out: &[u8], body: Body) {
    let text = String::from_utf8_lossy(out);
    let mut lines = text.strip_suffix("\r\n\r\n").expect("an end").split("\r\n");
    let start: Vec<_> = lines.next().unwrap().split(' ').collect();
    assert!(start.len() == 3 && start[2] == "HTTP/1.1", "{text}");
    let fields: Vec<_> =
        lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"))).collect();
    for (name, value) in &fields {
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':'), "{name:?}");
        assert!(
            !value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f)
                && value.trim_matches([' ', '\t']) == *value,
            "{value:?}"
        );
    }
    let values = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
    };
    let (length, coding) = (values("content-length"), values("transfer-encoding"));
    match body {
        Body::None | Body::UntilClose => {
            assert!(coding.is_empty() && (length.is_empty() || length == ["0"]), "{text}")
        }
        Body::Length(len) => assert!(coding.is_empty() && length == [len.to_string()], "{text}"),
        Body::Chunked => assert!(length.is_empty() && coding == ["chunked"], "{text}"),
    }
}

#[test]
fn severe_cases_are_refused_and_compliant_ones_passed_on() {
    let cases = cases::read();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut wrong = Vec::new();
    let mut used = Vec::new();
    for case in &cases {
        let is_forwarded = forwarded(&wire(case)).is_some();
        let differs = match case.tier {
            Tier::Severe => is_forwarded,
            Tier::Compliant => !is_forwarded,
            Tier::Between => false,
        };
        let known = DIFFERENCES.iter().find(|(name, _)| *name == case.name);
        match (differs, known) {
            (true, Some((name, _))) => used.push(*name),
            (true, None) => wrong.push(format!(
                "{:?} {}: {:?}",
                case.tier,
                case.name,
                String::from_utf8_lossy(&wire(case))
            )),
            (false, _) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let stale: Vec<_> = DIFFERENCES.iter().filter(|(name, _)| !used.contains(name)).collect();
    assert!(stale.is_empty(), "no difference any more: {stale:?}");
}
