//! Requests one after another, with their bodies: a backend reads as many as we do, and the same (no smuggling).

use lb::l7::{
    exchange::writer,
    http1::{Body, BodyReader, Forwarding, HeadLimits, Parsed, RequestHead, Side, Step, encode_request},
};

use super::{
    Target,
    request::{WIDE, words},
};
use crate::bytes::show;

/// See the module.
pub const TARGET: Target = Target { name: "stream", run, seeds, words };

/// What of a request matters to whoever serves it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    line: [String; 3],
    payload: Vec<u8>,
}

fn run(input: &[u8]) {
    let mut out = Vec::new();
    let sent = read(input, &HeadLimits::default(), Some(&mut out)).0;
    let (received, left) = read(&out, &WIDE, None);
    assert_eq!(received, sent, "{} from {}", show(&out), show(input));
    assert_eq!(left, 0, "{} from {}", show(&out), show(input));
}

/// Every whole request at the start of a stream, and bytes that are left; writes each as a backend gets it.
fn read(mut rest: &[u8], limits: &HeadLimits, mut out: Option<&mut Vec<u8>>) -> (Vec<Request>, usize) {
    let (mut head, mut requests) = (RequestHead::default(), Vec::new());
    while head.parse(rest, limits) == Ok(Parsed::Complete) {
        let Some((payload, used)) = body(head.body(), &rest[head.len()..]) else { break };
        let line = [head.method(rest), head.forwarded_path(rest), head.query(rest)].map(show);
        if let Some(out) = &mut out {
            let forwarding = Forwarding {
                client: [192, 0, 2, 7].into(),
                scheme: "http",
                authority: b"10.0.0.1:80",
                port: 80,
                is_trusted: false,
                says_forwarded: true,
                request_id: [1, 2],
            };
            encode_request(out, rest, &head, &forwarding, None, None);
            let writer = writer(head.body());
            payload.chunks(5).for_each(|piece| writer.frame(out, piece));
            writer.finish(out);
        }
        requests.push(Request { line, payload });
        rest = &rest[head.len() + used..];
    }
    (requests, rest.len())
}

/// The payload at the start of `input`, and the bytes that it took; `None`: it is broken, or not all there.
pub(super) fn body(body: Body, input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut reader = BodyReader::new(body, Side::Request);
    let (mut at, mut payload) = (0, Vec::new());
    while !reader.is_done() {
        match reader.next(&input[at..]).ok()? {
            Step::Data { skip, len } => {
                payload.extend_from_slice(&input[at + skip..at + skip + len]);
                at += skip + len;
            }
            Step::Done { consumed } => at += consumed,
            Step::More { .. } => return None,
        }
    }
    Some((payload, at))
}

fn seeds() -> Vec<Vec<u8>> {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /b?c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "PUT http://b/%2e/c HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: X\r\nX: 1\r\n\r\n",
        "\r\nHEAD /d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ];
    let mut seeds: Vec<Vec<u8>> = requests.iter().map(|request| request.as_bytes().to_vec()).collect();
    seeds.push(requests.concat().into_bytes());
    seeds.extend(requests.windows(2).map(|pair| pair.concat().into_bytes()));
    seeds
}
