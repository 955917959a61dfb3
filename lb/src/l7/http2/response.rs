//! Responses, to HTTP/2 and from it.

use http::{HeaderMap, Response, StatusCode, header, response::Parts};

use super::{
    BodyForm,
    fields::{self, Refused},
    tunnel::Ask,
};
use crate::{l7::http1::HeadLimits, model::reason::CloseReason};

/// The response of HTTP/2 that says what a head says which we have made for a client (final or interim), and the length that
/// its body has, where that is said. A 101, which HTTP/2 does not know, becomes the 200 that lets a tunnel begin (RFC 8441, 5).
///
/// # Errors
/// [`CloseReason::BadResponse`]: a 101 where no tunnel was asked for, or another success where one was; else nothing that we
/// make.
pub fn read_response(head: &[u8], is_tunnel: bool) -> Result<(Response<()>, Option<u64>), CloseReason> {
    let mut room = [httparse::EMPTY_HEADER; HeadLimits::FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut room);
    let is_whole = matches!(parsed.parse(head), Ok(httparse::Status::Complete(_)));
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = match status.filter(|_| is_whole) {
        Some(StatusCode::SWITCHING_PROTOCOLS) if is_tunnel => StatusCode::OK,
        Some(status) if status != StatusCode::SWITCHING_PROTOCOLS && !(is_tunnel && status.is_success()) => {
            status
        }
        _ => return Err(CloseReason::BadResponse),
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = http::Version::HTTP_2;
    let headers = response.headers_mut();
    headers.reserve(parsed.headers.len());
    for field in &*parsed.headers {
        if is_tunnel && field.name.eq_ignore_ascii_case(header::SEC_WEBSOCKET_ACCEPT.as_str()) {
            continue;
        }
        fields::append(headers, field.name.as_bytes(), field.value)
            .map_err(|Refused| CloseReason::BadResponse)?;
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    Ok((response, length))
}

/// Appends the head of HTTP/1.1 that says what a backend said in HTTP/2, final or interim, to be read by
/// [`ResponseHead::parse`](crate::l7::http1::ResponseHead::parse). Nothing is appended of one that is refused.
///
/// `has_body`: the stream did not end with this head. `was_head`: the request's method was HEAD. `fields_max`: most fields; the
/// head that is written has up to one more.
///
/// # Errors
/// [`CloseReason::BadResponse`].
pub fn write_response(
    parts: &Parts,
    has_body: bool,
    was_head: bool,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, CloseReason> {
    let start = out.len();
    let written = write_head(parts, has_body, was_head, fields_max, out);
    written.map_err(|Refused| {
        out.truncate(start);
        CloseReason::BadResponse
    })
}

fn write_head(
    parts: &Parts,
    has_body: bool,
    was_head: bool,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<BodyForm, Refused> {
    let status = parts.status;
    // Source: RFC 9113, 8.6. Classes beyond 5 do not exist.
    if status == StatusCode::SWITCHING_PROTOCOLS || status.as_u16() > 599 || parts.headers.len() > fields_max
    {
        return Err(Refused);
    }
    for part in [b"HTTP/1.1 ", status.as_str().as_bytes(), b" \r\n"] {
        out.extend_from_slice(part);
    }
    write_fields(&parts.headers, out)?;
    let describes_only = was_head || status == StatusCode::NOT_MODIFIED;
    let form = if status.is_informational() || status == StatusCode::NO_CONTENT || describes_only {
        // What it describes it does not carry.
        for length in parts.headers.get_all(header::CONTENT_LENGTH) {
            fields::push(out, b"content-length", length.as_bytes());
        }
        BodyForm::None
    } else {
        let form = fields::push_framing(out, &parts.headers, has_body)?;
        if form == BodyForm::None && !parts.headers.contains_key(header::CONTENT_LENGTH) {
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
    parts: &Parts,
    ask: &Ask,
    fields_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), CloseReason> {
    let start = out.len();
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    if parts.headers.len() > fields_max || write_fields(&parts.headers, out).is_err() {
        out.truncate(start);
        return Err(CloseReason::BadResponse);
    }
    ask.push_grant(out);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// All but the length, which is what frames the message.
fn write_fields(headers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Refused> {
    for (name, value) in headers {
        fields::check(name, value)?;
        if name != header::CONTENT_LENGTH {
            fields::push(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::http1::{Body, Parsed, ResponseHead, encode_error};

    fn fields(headers: &HeaderMap) -> Vec<String> {
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect()
    }

    #[test]
    fn heads_of_ours() {
        for (head, status, expected, length) in [
            (
                "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX: \u{e9}\r\nset-cookie: b\r\nVia: 1.1 lb\r\n\
                 Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
                200,
                &["set-cookie: a", "set-cookie: b", "x: \u{e9}", "via: 1.1 lb"][..],
                None,
            ),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n", 404, &["content-length: 7"], Some(7)),
            (
                "HTTP/1.1 299 \r\nKeep-Alive: x\r\nContent-Length: 0\r\n\r\n",
                299,
                &["content-length: 0"],
                Some(0),
            ),
            ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 103, &["link: </a>"], None),
            ("HTTP/1.1 100 Continue\r\n\r\n", 100, &[], None),
        ] {
            let (response, found) = read_response(head.as_bytes(), false).unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(response.version(), http::Version::HTTP_2);
            assert_eq!(fields(response.headers()), expected);
            assert_eq!(found, length, "{head:?}");
        }
        for broken in
            ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n", "HTTP/1.1 99 \r\n\r\n"]
        {
            assert_eq!(read_response(broken.as_bytes(), false).map(|_| ()), Err(CloseReason::BadResponse));
        }
    }

    #[test]
    fn every_answer_of_ours_is_read() {
        for &reason in CloseReason::ALL.iter().filter(|reason| reason.status() != 0) {
            let mut out = Vec::new();
            encode_error(&mut out, reason, b"Retry-After: 7\r\n", false, true);
            let (response, length) = read_response(&out, false).unwrap();
            assert_eq!(response.status(), reason.status());
            let head = memchr::memmem::find(&out, b"\r\n\r\n").unwrap() + 4;
            assert_eq!(length, Some((out.len() - head) as u64));
            assert!(!response.headers().contains_key(header::CONNECTION));
        }
    }

    fn parts(status: u16, fields: &[(&str, &[u8])]) -> Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    fn written(
        status: u16,
        fields: &[(&str, &[u8])],
        has_body: bool,
        was_head: bool,
    ) -> Result<String, CloseReason> {
        let mut out = Vec::new();
        let form = write_response(&parts(status, fields), has_body, was_head, 128, &mut out);
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
