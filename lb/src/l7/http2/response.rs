//! Responses, to HTTP/2 and from it.

use lb_http2::{FieldWriter, Head, Known};

use super::{
    BodyForm,
    fields::{self, Refused, Room},
    tunnel::Ask,
};
use crate::model::reason::CloseReason;

/// What a head says which we have made for a client, final or interim.
pub(super) struct Said<'h> {
    pub(super) status: u16,
    pub(super) fields: &'h [httparse::Header<'h>],
    is_tunnel: bool,
}

/// Reads it. A 101, which HTTP/2 does not know, becomes the 200 that lets a tunnel begin (RFC 8441, 5).
///
/// # Errors
/// [`CloseReason::BadResponse`]: a 101 where no tunnel was asked for, or another success where one was; else nothing that we
/// make.
pub(super) fn read_response<'h>(
    head: &'h [u8],
    is_tunnel: bool,
    room: &'h mut Room<'h>,
) -> Result<Said<'h>, CloseReason> {
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let read = config.parse_response_with_uninit_headers(&mut parsed, head, room);
    let status = match (read, parsed.code) {
        (Ok(httparse::Status::Complete(_)), Some(101)) if is_tunnel => 200,
        (Ok(httparse::Status::Complete(_)), Some(status @ 100..)) if status != 101 => status,
        _ => return Err(CloseReason::BadResponse),
    };
    if is_tunnel && parsed.code != Some(101) && (200..300).contains(&status) {
        return Err(CloseReason::BadResponse);
    }
    Ok(Said { status, fields: parsed.headers, is_tunnel })
}

impl Said<'_> {
    /// Whether all fields could be written.
    pub(super) fn write(&self, writer: &mut FieldWriter<'_>) -> bool {
        let mut is_sound = true;
        for field in self.fields {
            if self.is_tunnel && field.name.eq_ignore_ascii_case("sec-websocket-accept") {
                continue;
            }
            fields::append(writer, field.name.as_bytes(), field.value, &mut is_sound);
        }
        is_sound
    }
}

/// Appends the head of HTTP/1.1 that says what a backend said in HTTP/2, final or interim, to be read by
/// [`ResponseHead::parse`](crate::l7::http1::ResponseHead::parse). Nothing is appended of one that is refused.
///
/// `has_body`: the stream did not end with this head. `was_head`: the request's method was HEAD. `fields_max`: most fields; the
/// head that is written has up to one more.
///
/// # Errors
/// [`CloseReason::BadResponse`].
pub(super) fn write_response(
    head: &Head<'_>,
    has_body: bool,
    was_head: bool,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, CloseReason> {
    let start = out.len();
    let written = write_head(head, has_body, was_head, fields_max, out);
    written.map_err(|Refused| {
        out.truncate(start);
        CloseReason::BadResponse
    })
}

fn write_head(
    head: &Head<'_>,
    has_body: bool,
    was_head: bool,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, Refused> {
    let status = head.status();
    // Source: RFC 9113, 8.6, as the engine has seen to. Classes beyond 5 do not exist.
    if !(100..600).contains(&status) {
        return Err(Refused);
    }
    let mut digits = itoa::Buffer::new();
    for part in [b"HTTP/1.1 ", digits.format(status).as_bytes(), b" \r\n"] {
        out.extend_from_slice(part);
    }
    let length = write_fields(head, fields_max, out)?;
    let form = if status < 200 || matches!(status, 204 | 304) || was_head {
        // What it describes it does not carry.
        if let Some(length) = length {
            fields::push(out, b"content-length", length);
        }
        BodyForm::None
    } else {
        let form = fields::push_framing(out, length, has_body)?;
        if form == BodyForm::None && length.is_none() {
            // Without it HTTP/1.1 has a body that ends with the connection.
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        form
    };
    out.extend_from_slice(b"\r\n");
    Ok(form)
}

/// The same of what grants a tunnel that was asked for with `ask`.
///
/// # Errors
/// [`CloseReason::BadResponse`].
pub(super) fn write_grant(
    head: &Head<'_>,
    ask: &Ask,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, CloseReason> {
    let start = out.len();
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    if write_fields(head, fields_max, out).is_err() {
        out.truncate(start);
        return Err(CloseReason::BadResponse);
    }
    ask.push_grant(out);
    out.extend_from_slice(b"\r\n");
    Ok(BodyForm::Tunnel)
}

/// All but the length, which is what frames the message.
fn write_fields<'h>(
    head: &Head<'h>,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<Option<&'h [u8]>, Refused> {
    let mut length = None;
    for (count, field) in head.fields().enumerate() {
        if count == fields_max {
            return Err(Refused);
        }
        if field.known == Known::ContentLength {
            length = Some(field.value);
        } else {
            fields::push(out, field.name, field.value);
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            fields::{framing, room},
            tests::{Pair, of_response, passed},
        },
        *,
    };
    use crate::l7::http1::{Body, HeadLimits, Parsed, ResponseHead, encode_error};

    /// Status and fields as HTTP/2 has them, and the length that is said.
    fn read(head: &[u8]) -> Result<(Vec<String>, Option<u64>), CloseReason> {
        let mut room = room();
        let said = read_response(head, false, &mut room)?;
        let fields = passed(|server, stream| {
            server.send_response(stream, said.status, false, |writer| assert!(said.write(writer))).unwrap();
        });
        let fields = fields.into_iter().map(|(name, value)| format!("{name}: {value}"));
        Ok((fields.collect(), framing(said.fields).0))
    }

    #[test]
    fn heads_of_ours() {
        for (head, expected, length) in [
            (
                "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX: e\r\nset-cookie: b\r\nVia: 1.1 lb\r\n\
                 Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
                &[":status: 200", "set-cookie: a", "x: e", "set-cookie: b", "via: 1.1 lb"][..],
                None,
            ),
            (
                "HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n",
                &[":status: 404", "content-length: 7"],
                Some(7),
            ),
            (
                "HTTP/1.1 299 \r\nKeep-Alive: x\r\nContent-Length: 0\r\n\r\n",
                &[":status: 299", "content-length: 0"],
                Some(0),
            ),
            ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", &[":status: 103", "link: </a>"], None),
            ("HTTP/1.1 100 Continue\r\n\r\n", &[":status: 100"], None),
        ] {
            let (fields, found) = read(head.as_bytes()).unwrap();
            assert_eq!(fields, expected);
            assert_eq!(found, length, "{head:?}");
        }
        for broken in
            ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n", "HTTP/1.1 99 \r\n\r\n"]
        {
            assert_eq!(read(broken.as_bytes()), Err(CloseReason::BadResponse), "{broken:?}");
        }
    }

    #[test]
    fn answers_to_who_asked_for_a_tunnel() {
        for (status, expected) in [(101, Ok(200)), (200, Err(())), (204, Err(())), (404, Ok(404))] {
            let head = format!("HTTP/1.1 {status} \r\nUpgrade: x\r\n\r\n");
            let mut room = room();
            let said = read_response(head.as_bytes(), true, &mut room);
            assert_eq!(said.map(|said| said.status).map_err(drop), expected, "{status}");
        }
    }

    #[test]
    fn every_answer_of_ours_is_read() {
        for &reason in CloseReason::ALL.iter().filter(|reason| reason.status() != 0) {
            let mut out = Vec::new();
            encode_error(&mut out, reason, b"Retry-After: 7\r\n", false, true);
            let (fields, length) = read(&out).unwrap();
            assert_eq!(fields[0], format!(":status: {}", reason.status()));
            let head = memchr::memmem::find(&out, b"\r\n\r\n").unwrap() + 4;
            assert_eq!(length, Some((out.len() - head) as u64));
        }
    }

    fn written(
        status: u16,
        fields: &[Pair<'_>],
        has_body: bool,
        was_head: bool,
    ) -> Result<String, CloseReason> {
        let (mut out, code) = (Vec::new(), status.to_string());
        let all = [&[(":status", code.as_bytes())], fields].concat();
        let form = of_response(&all, !has_body, was_head, |head| {
            write_response(head, has_body, was_head, 128, &mut out)
        });
        assert!(form.is_ok() || out.is_empty());
        let form = form?;
        let mut head = ResponseHead::default();
        let parsed = head.parse(&out, &HeadLimits::default(), was_head)?;
        assert_eq!((parsed, head.len(), head.status()), (Parsed::Complete, out.len(), status));
        match (form, head.body()) {
            (BodyForm::None, Body::None | Body::Length(0)) | (BodyForm::Chunked, Body::Chunked) => {}
            (BodyForm::Length(sent), Body::Length(read)) => assert_eq!(sent, read),
            (form, body) => panic!("{form:?} is read as {body:?}"),
        }
        let text = String::from_utf8(out).unwrap();
        Ok(text.strip_prefix(&format!("HTTP/1.1 {status} \r\n")).unwrap().to_owned())
    }

    #[test]
    fn heads_of_backends() {
        let length: &[(&str, &[u8])] = &[("content-length", b"5")];
        for (status, fields, has_body, was_head, expected) in [
            (
                200,
                &[("x", b"y".as_slice()), ("x", b"z")][..],
                true,
                false,
                "x: y\r\nx: z\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
            (200, length, true, false, "content-length: 5\r\n\r\n"),
            (200, &[("grpc-status", b"12")], false, false, "grpc-status: 12\r\ncontent-length: 0\r\n\r\n"),
            (200, length, false, true, "content-length: 5\r\n\r\n"),
            (200, length, true, true, "content-length: 5\r\n\r\n"),
            (200, &[], false, true, "\r\n"),
            (304, length, false, false, "content-length: 5\r\n\r\n"),
            (304, &[], true, false, "\r\n"),
            (204, &[], false, false, "\r\n"),
            (103, &[("link", b"</a>")], true, false, "link: </a>\r\n\r\n"),
            (100, &[], true, false, "\r\n"),
            (500, &[], false, false, "content-length: 0\r\n\r\n"),
        ] {
            let got = written(status, fields, has_body, was_head);
            assert_eq!(got.as_deref(), Ok(expected), "{status} {fields:?}");
        }
    }

    #[test]
    fn bad_heads_of_backends() {
        for (status, fields, has_body) in [
            (101, &[("upgrade", b"x".as_slice())][..], true),
            (101, &[], true),
            (600, &[], true),
            (200, &[("connection", b"close")], true),
            (200, &[("transfer-encoding", b"chunked")], true),
            (200, &[("te", b"gzip")], true),
            (200, &[("x", b" y")], true),
            (200, &[("x", b"y\t")], true),
            (200, &[("content-length", b"5"), ("content-length", b"5")], true),
            (200, &[("content-length", b"5")], false),
            (200, &[("content-length", b"5x")], true),
            (204, &[("content-length", b"5")], false),
            (103, &[("content-length", b"5")], true),
            (304, &[("content-length", b"5"), ("content-length", b"6")], false),
        ] {
            let got = written(status, fields, has_body, false);
            assert_eq!(got, Err(CloseReason::BadResponse), "{status} {fields:?}");
        }
        let many = vec![("x", b"y".as_slice()); 129];
        assert_eq!(written(200, &many, true, false), Err(CloseReason::BadResponse));
    }
}
