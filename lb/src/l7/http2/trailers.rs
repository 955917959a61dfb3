//! Trailers, which HTTP/1.1 has behind the last chunk.

use http::HeaderMap;

use super::fields::{self, Refused};
use crate::{
    l7::headers::{FieldKind, trim_ows},
    model::reason::CloseReason,
};

/// Appends trailers of HTTP/2 as lines for [`BodyWriter::finish_with`](crate::l7::http1::BodyWriter::finish_with). Those that
/// may not stand there are left out (RFC 9110, 6.5.1): what frames or routes a message, says who the client is, or describes
/// the content. Nothing is appended of what is refused.
///
/// What reads them bounds their bytes.
///
/// # Errors
/// [`CloseReason::Trailer`]: more than `fields_max`, or a breach of RFC 9113, 8.2.
pub(super) fn write_trailers(
    trailers: &HeaderMap,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    let is_sound = trailers.len() <= fields_max
        && trailers.iter().all(|(name, value)| fields::check(name, value).is_ok());
    if !is_sound {
        return Err(CloseReason::Trailer);
    }
    for (name, value) in trailers {
        let name = name.as_str().as_bytes();
        if FieldKind::of(name).is_allowed_in_trailer() {
            fields::push(out, name, value.as_bytes());
        }
    }
    Ok(())
}

/// The trailers of HTTP/2 that say what lines do which [`BodyReader`](crate::l7::http1::BodyReader) has kept. `None` for no
/// lines: then the body ends without.
///
/// # Errors
/// [`CloseReason::Trailer`]: nothing of lines that were kept.
pub(super) fn read_trailers(lines: &[u8]) -> Result<Option<HeaderMap>, CloseReason> {
    if lines.is_empty() {
        return Ok(None);
    }
    let mut trailers = HeaderMap::new();
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").ok_or(CloseReason::Trailer)?;
        let (name, value) = memchr::memchr(b':', line)
            .and_then(|colon| Some((line.get(..colon)?, line.get(colon + 1..)?)))
            .ok_or(CloseReason::Trailer)?;
        fields::append(&mut trailers, name, trim_ows(value)).map_err(|Refused| CloseReason::Trailer)?;
    }
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::l7::http1::{Body, BodyReader, BodyWriter, Side, Step};

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
        }
        map
    }

    /// Through our own reader of chunks, as they go from one side to the other.
    fn passed(trailers: &HeaderMap) -> Result<Option<HeaderMap>, CloseReason> {
        let (mut lines, mut body) = (Vec::new(), Vec::new());
        write_trailers(trailers, 128, &mut lines)?;
        BodyWriter::Chunked.frame(&mut body, b"data");
        BodyWriter::Chunked.finish_with(&mut body, &lines);
        let mut reader = BodyReader::new(Body::Chunked, Side::Request).keeping_trailers();
        let Step::Data { skip, len } = reader.next(&body)? else { panic!("no data") };
        let rest = &body[skip + len..];
        assert_eq!(reader.next(rest)?, Step::Done { consumed: rest.len() });
        read_trailers(reader.trailers())
    }

    #[test]
    fn trailers_of_grpc_get_through() {
        let trailers = map(&[
            ("grpc-status", "5"),
            ("grpc-message", "no such thing%0A"),
            ("x", ""),
            ("x", "2"),
            ("grpc-status-details-bin", "CAUSAA"),
        ]);
        assert_eq!(passed(&trailers), Ok(Some(trailers)));
        assert_eq!(passed(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn row_28_what_may_not_stand_there_is_left_out() {
        let trailers = map(&[
            ("content-length", "5"),
            ("host", "a"),
            ("authorization", "x"),
            ("set-cookie", "x"),
            ("x-forwarded-for", "192.0.2.7"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("content_length", "5"),
            ("x-kept", "1"),
        ]);
        assert_eq!(passed(&trailers), Ok(Some(map(&[("x-kept", "1")]))));
        assert_eq!(passed(&map(&[("content-length", "5")])), Ok(None));
    }

    #[test]
    fn bad_trailers() {
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("x", " a"),
            ("x", "a\t"),
            ("te", "gzip"),
        ] {
            assert_eq!(passed(&map(&[(name, value)])), Err(CloseReason::Trailer), "{name}: {value:?}");
        }
        assert_eq!(passed(&map(&[("x", "y"); 129])), Err(CloseReason::Trailer));
        let long = "y".repeat(200);
        assert_eq!(passed(&map(&[("x", &*long); 50])), Err(CloseReason::Trailer), "the reader's bound");
        for lines in ["x", "x\r\n", "x: y", "x: y\n", ": y\r\n", "a b: c\r\n", "x: y\0\r\n", "\r\n"] {
            assert_eq!(read_trailers(lines.as_bytes()), Err(CloseReason::Trailer), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_trailer_gets_out_of_its_line(
            fields in prop::collection::vec(("[a-z_-]{1,8}", prop::collection::vec(any::<u8>(), 0..8)), 0..8),
        ) {
            let mut trailers = HeaderMap::new();
            for (name, value) in fields {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    trailers.append(name.parse::<HeaderName>().unwrap(), value);
                }
            }
            if let Ok(got) = passed(&trailers) {
                let mut expected = trailers;
                let names: Vec<_> = expected.keys().cloned().collect();
                for name in names {
                    if !FieldKind::of(name.as_str().as_bytes()).is_allowed_in_trailer() {
                        expected.remove(name);
                    }
                }
                prop_assert_eq!(got.unwrap_or_default(), expected);
            }
        }
    }
}
