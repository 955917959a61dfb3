//! Chunked bodies: the same payload however they are cut, as another reader has it, and framed again by us.
//!
//! ```text
//! input = limit of the payload (1 byte; 255: none) body
//! ```

use lb::{
    l7::http1::{Body, BodyReader, BodyWriter, Side, Step},
    model::reason::CloseReason,
};

use super::Target;
use crate::bytes::{cuts, show};

/// See the module.
pub const TARGET: Target = Target { name: "body", run, seeds, words };

/// Payload, and bytes that belong to the next message.
type Outcome = Result<(Vec<u8>, usize), CloseReason>;

fn run(input: &[u8]) {
    let Some((&limit, input)) = input.split_first() else { return };
    let reader = || match limit {
        255 => BodyReader::new(Body::Chunked, Side::Request),
        limit => {
            BodyReader::limited(Body::Chunked, u64::from(limit)).expect("a length that is not known yet")
        }
    };
    let whole = read(reader(), input, &[]);
    assert_eq!(read(reader(), input, &cuts(input.len())), whole, "{}", show(input));
    let thirds = [input.len() / 3, input.len() * 2 / 3];
    assert_eq!(read(reader(), input, &thirds), whole, "{}", show(input));
    let response = read(BodyReader::new(Body::Chunked, Side::Response), input, &[]);
    match &whole {
        Ok((payload, extra)) => {
            assert_eq!(response, whole);
            assert!(limit == 255 || payload.len() <= usize::from(limit));
            assert_eq!(plain(input), Some((payload.clone(), *extra)), "{}", show(input));
            framed_again(payload);
        }
        Err(CloseReason::ClientGone) => assert_eq!(response, Err(CloseReason::Truncated)),
        Err(CloseReason::BodyTooLarge) => assert_ne!(limit, 255),
        Err(_) => assert_eq!(response, Err(CloseReason::BadResponse)),
    }
}

/// Feeds a body in pieces that end at `cuts`.
fn read(mut reader: BodyReader, input: &[u8], cuts: &[usize]) -> Outcome {
    let (mut at, mut payload) = (0, Vec::new());
    for &cut in cuts.iter().chain([&input.len()]) {
        loop {
            match reader.next(&input[at..cut]) {
                Ok(Step::Data { skip, len }) => {
                    assert!(len > 0);
                    payload.extend_from_slice(&input[at + skip..at + skip + len]);
                    at += skip + len;
                }
                Ok(Step::More { consumed }) => {
                    assert_eq!(at + consumed, cut);
                    at = cut;
                    break;
                }
                Ok(Step::Done { consumed }) => {
                    assert!(reader.is_done() && reader.next(b"GET") == Ok(Step::Done { consumed: 0 }));
                    return Ok((payload, input.len() - at - consumed));
                }
                Err(reason) => {
                    assert_eq!(reader.next(b"0\r\n\r\n"), Err(reason), "an error lasts");
                    return Err(reason);
                }
            }
        }
    }
    reader.at_eof().map(|()| (payload, 0))
}

/// The plainest of readers, for bodies that are sound.
fn plain(mut rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut payload = Vec::new();
    loop {
        let line = line(&mut rest)?;
        let digits = line.split(|&byte| byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        payload.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    while !line(&mut rest)?.is_empty() {}
    Some((payload, rest.len()))
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

fn framed_again(payload: &[u8]) {
    let mut framed = Vec::new();
    for piece in payload.chunks(7) {
        BodyWriter::Chunked.frame(&mut framed, piece);
    }
    BodyWriter::Chunked.finish(&mut framed);
    framed.extend_from_slice(b"GET");
    let reader = BodyReader::new(Body::Chunked, Side::Request);
    assert_eq!(read(reader, &framed, &[]), Ok((payload.to_vec(), 3)));
}

fn seeds() -> Vec<Vec<u8>> {
    let bodies = [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\nGET",
        "a;name=value;q=\"a \\\" b\";flag\r\n0123456789\r\n0;last\r\n\r\n",
        "1\r\nx\r\n0\r\nX-Checksum: 1 2\r\nx-empty:\r\n\r\nrest",
        "0000000000000001\r\nx\r\n7fffffffffffffff\r\ny",
        "5\r\nhelloX\r\n0\r\nHost: a\r\n\r\n",
    ];
    bodies.iter().flat_map(|body| [4, 255].map(|limit| [&[limit], body.as_bytes()].concat())).collect()
}

fn words() -> Vec<Vec<u8>> {
    [
        "0\r\n",
        "1\r\nx\r\n",
        "5\r\nhello\r\n",
        "\r\n",
        ";a=\"b\"",
        ";a=b",
        ";a",
        "\\\"",
        "Host: a\r\n",
        "x: y\r\n",
        "Content-Length: 1\r\n",
        "ffffffffffffffff",
        "0000000000000000",
        "0\r\n\r\n",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec()
}
