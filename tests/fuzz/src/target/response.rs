//! Heads of HTTP/1 responses from a backend: read however they are cut, passed on and read again.
//!
//! ```text
//! input = limits (bit 0), asked by HEAD (1), the client speaks 1.0 (2), closes (3) (1 byte) head
//! ```

use lb::{
    l7::{
        exchange::downstream_framing,
        http1::{
            Body, Downstream, Parsed, ResponseHead, Version, encode_interim, encode_response, encode_switch,
        },
    },
    model::reason::CloseReason,
};

use super::{
    Target,
    request::{WIDE, count, limits, plain_fields, words},
};
use crate::bytes::{cuts, show};

/// See the module.
pub const TARGET: Target = Target { name: "response", run, seeds, words };

fn run(input: &[u8]) {
    let Some((&first, input)) = input.split_first() else { return };
    let limits = limits(first);
    let is_head = first & 2 != 0;
    let mut head = ResponseHead::default();
    let whole = head.parse(input, &limits, is_head);
    assert!(matches!(whole, Ok(_) | Err(CloseReason::BadResponse)), "{whole:?}");
    let mut early = ResponseHead::default();
    let mut is_over = false;
    for cut in cuts(input.len()) {
        let got = early.parse(&input[..cut], &limits, is_head);
        assert!(
            got == whole || (got == Ok(Parsed::Partial) && !is_over),
            "{got:?}, whole {whole:?}: {}",
            show(input)
        );
        is_over = got != Ok(Parsed::Partial);
    }
    if whole != Ok(Parsed::Complete) {
        return;
    }
    assert!(head.len() <= input.len() && (100..600).contains(&head.status()));
    let input = &input[..head.len()];
    let version = if first & 4 == 0 { Version::Http11 } else { Version::Http10 };
    if head.is_switch() {
        let mut out = Vec::new();
        encode_switch(&mut out, input, &head, None);
        again(input, &head, &out, is_head, false);
    } else if head.is_interim() {
        let mut out = Vec::new();
        encode_interim(&mut out, input, &head);
        again(input, &head, &out, is_head, false);
    } else {
        let to = Downstream { version, close: first & 8 != 0, body: downstream_framing(&head, version) };
        let mut out = Vec::new();
        encode_response(&mut out, input, &head, &to, None);
        again(input, &head, &out, is_head, true);
        framed(&head, &out, &to);
    }
}

/// The client reads what we read.
fn again(input: &[u8], head: &ResponseHead, out: &[u8], is_head: bool, is_final: bool) {
    let mut again = ResponseHead::default();
    assert_eq!(again.parse(out, &WIDE, is_head), Ok(Parsed::Complete), "{} from {}", show(out), show(input));
    assert_eq!(again.len(), out.len(), "{} from {}", show(out), show(input));
    assert_eq!((again.status(), show(again.reason(out))), (head.status(), show(head.reason(input))));
    let is_kept = again.body() == head.body() || matches!(head.body(), Body::Chunked | Body::UntilClose);
    assert!(!is_final || is_kept, "{} from {}", show(out), show(input));
}

/// A reader that shares nothing with ours finds the framing that was meant.
fn framed(head: &ResponseHead, out: &[u8], to: &Downstream) {
    let fields = plain_fields(out);
    let framing = (count(&fields, "content-length"), count(&fields, "transfer-encoding"));
    match to.body {
        Body::None => assert!(framing.0 + framing.1 <= 1, "{}", show(out)),
        Body::Length(length) => {
            assert_eq!(framing, (1, 0), "{}", show(out));
            assert!(fields.contains(&("content-length".to_owned(), length.to_string())), "{}", show(out));
        }
        Body::Chunked => assert_eq!(framing, (0, 1), "{}", show(out)),
        Body::UntilClose => assert_eq!(framing, (0, 0), "{}", show(out)),
    }
    assert!(to.version == Version::Http11 || framing.1 == 0, "{}", show(out));
    assert!(head.status() != 204 || framing == (0, 0), "{}", show(out));
    assert_eq!(fields.contains(&("connection".to_owned(), "close".to_owned())), to.close, "{}", show(out));
    assert!(count(&fields, "upgrade") + count(&fields, "keep-alive") + count(&fields, "trailer") == 0);
}

fn seeds() -> Vec<Vec<u8>> {
    let heads = [
        "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 200\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\nETag: \"a\"\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 599 \r\nX:\t y \r\nEmpty:\r\nConnection: close, X\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    let firsts = [0, 2, 4, 8, 15];
    heads.iter().flat_map(|head| firsts.map(|first| [&[first], head.as_bytes()].concat())).collect()
}
