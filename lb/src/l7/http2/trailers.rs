//! Trailers, which HTTP/1.1 has behind the last chunk.

use lb_http2::{Field, FieldWriter};

use super::fields;
use crate::{
    l7::headers::{FieldKind, trim_ows},
    model::reason::CloseReason,
};

/// Fields behind a body.
const FIELDS_MAX: usize = 128;

/// Appends trailers of HTTP/2 as lines for [`BodyWriter::finish_with`](crate::l7::http1::BodyWriter::finish_with). Those that
/// may not stand there are left out (RFC 9110, 6.5.1): what frames or routes a message, says who the client is, or describes
/// the content. Nothing is appended of what is refused.
///
/// What reads them bounds their bytes; the engine has looked at each.
///
/// # Errors
/// [`CloseReason::Trailer`]: too many.
pub(super) fn write_trailers<'a>(
    trailers: impl Iterator<Item = Field<'a>>,
    out: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    let start = out.len();
    for (count, Field { name, value, .. }) in trailers.enumerate() {
        if count == FIELDS_MAX {
            out.truncate(start);
            return Err(CloseReason::Trailer);
        }
        if FieldKind::of(name).is_allowed_in_trailer() {
            fields::push(out, name, value);
        }
    }
    Ok(())
}

/// The same back: of lines which [`BodyReader`](crate::l7::http1::BodyReader) has kept.
///
/// # Errors
/// [`CloseReason::Trailer`]: nothing of lines that were kept.
pub(super) fn read_trailers(lines: &[u8], writer: &mut FieldWriter<'_>) -> Result<(), CloseReason> {
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").ok_or(CloseReason::Trailer)?;
        let (name, value) = memchr::memchr(b':', line)
            .and_then(|colon| Some((line.get(..colon)?, line.get(colon + 1..)?)))
            .ok_or(CloseReason::Trailer)?;
        writer.push(name, trim_ows(value)).map_err(|_| CloseReason::Trailer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::tests::{of_trailers, passed as sent},
        *,
    };
    use crate::l7::http1::{Body, BodyReader, BodyWriter, Side, Step};

    /// Through our own reader of chunks, as they go from one side to the other.
    fn passed(trailers: &[(&str, &[u8])]) -> Result<Vec<(String, String)>, CloseReason> {
        let (mut lines, mut body) = (Vec::new(), Vec::new());
        of_trailers(trailers, |trailers| write_trailers(trailers.fields(), &mut lines))?;
        BodyWriter::Chunked.frame(&mut body, b"data");
        BodyWriter::Chunked.finish_with(&mut body, &lines);
        let mut reader = BodyReader::new(Body::Chunked, Side::Request).keeping_trailers();
        let Step::Data { skip, len } = reader.next(&body)? else { panic!("no data") };
        let rest = &body[skip + len..];
        assert_eq!(reader.next(rest)?, Step::Done { consumed: rest.len() });
        let mut read = Ok(());
        let fields = sent(|server, stream| {
            server.send_response(stream, 200, false, |_| {}).unwrap();
            server.send_trailers(stream, |writer| read = read_trailers(reader.trailers(), writer)).unwrap();
        });
        read.map(|()| fields)
    }

    fn owned(fields: &[(&str, &[u8])]) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect();
        fields.iter().map(|(name, value)| (text(name.as_bytes()), text(value))).collect()
    }

    #[test]
    fn trailers_of_grpc_get_through() {
        let trailers: &[(&str, &[u8])] = &[
            ("grpc-status", b"5"),
            ("grpc-message", b"no such thing%0A"),
            ("x", b""),
            ("x", b"2"),
            ("grpc-status-details-bin", b"CAUSAA"),
        ];
        assert_eq!(passed(trailers), Ok(owned(trailers)));
        assert_eq!(passed(&[]), Ok(Vec::new()));
    }

    #[test]
    fn row_28_what_may_not_stand_there_is_left_out() {
        let trailers: &[(&str, &[u8])] = &[
            ("content-length", b"5"),
            ("host", b"a"),
            ("authorization", b"x"),
            ("set-cookie", b"x"),
            ("x-forwarded-for", b"192.0.2.7"),
            ("te", b"trailers"),
            ("trailer", b"x"),
            ("content_length", b"5"),
            ("x-kept", b"1"),
        ];
        assert_eq!(passed(trailers), Ok(owned(&[("x-kept", b"1")])));
        assert_eq!(passed(&[("content-length", b"5")]), Ok(Vec::new()));
    }

    #[test]
    fn bad_trailers() {
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("x", " a"),
            ("x", "a\t"),
            ("te", "gzip"),
            (":path", "/"),
        ] {
            assert_eq!(passed(&[(name, value.as_bytes())]), Err(CloseReason::Trailer), "{name}: {value:?}");
        }
        assert_eq!(passed(&[("x", b"y".as_slice()); 129]), Err(CloseReason::Trailer));
        let long = "y".repeat(200);
        assert_eq!(passed(&[("x", long.as_bytes()); 50]), Err(CloseReason::Trailer), "the reader's bound");
        for lines in ["x", "x\r\n", "x: y", "x: y\n", ": y\r\n", "a b: c\r\n", "x: y\0\r\n", "\r\n"] {
            let mut read = Ok(());
            sent(|server, stream| {
                server.send_response(stream, 200, false, |_| {}).unwrap();
                server
                    .send_trailers(stream, |writer| read = read_trailers(lines.as_bytes(), writer))
                    .unwrap();
            });
            assert_eq!(read, Err(CloseReason::Trailer), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_trailer_gets_out_of_its_line(
            fields in prop::collection::vec(("[a-z_-]{1,8}", prop::collection::vec(any::<u8>(), 0..8)), 0..8),
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
            if let Ok(got) = passed(&fields) {
                let mut expected = fields;
                expected.retain(|(name, _)| FieldKind::of(name.as_bytes()).is_allowed_in_trailer());
                prop_assert_eq!(got, owned(&expected));
            }
        }
    }
}
