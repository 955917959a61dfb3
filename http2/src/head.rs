//! Heads and trailers: which fields a message must have, and which it may. Source: RFC 9113, 8.

use crate::{
    field::{Flaw, Known, length},
    fields::{Field, Fields},
};

/// A sound head, or sound trailers, as they were decoded.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    fields: &'a Fields,
    found: Found,
}

/// Where what HTTP/2 itself needs stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    method: Place,
    scheme: Place,
    authority: Place,
    path: Place,
    status: Place,
    protocol: Place,
    host: Place,
    /// Where the fields begin.
    regular: usize,
    length: Option<u64>,
}

/// Of a field; `None`: it is not there.
type Place = Option<u32>;

impl<'a> Head<'a> {
    pub(crate) const fn new(fields: &'a Fields, found: Found) -> Self {
        Self { fields, found }
    }

    fn value(&self, place: Place) -> Option<&'a [u8]> {
        Some(self.fields.get(place? as usize)?.value)
    }

    /// `:method`, a token; empty in what is no request.
    pub fn method(&self) -> &'a [u8] {
        self.value(self.found.method).unwrap_or_default()
    }

    /// `:scheme`; only CONNECT has none.
    pub fn scheme(&self) -> Option<&'a [u8]> {
        self.value(self.found.scheme)
    }

    /// `:authority`, of graphic bytes without `@` and `/`. A request has it, or one `host`, or both.
    pub fn authority(&self) -> Option<&'a [u8]> {
        self.value(self.found.authority)
    }

    /// The value of `host`, which is among the fields, too.
    pub fn host(&self) -> Option<&'a [u8]> {
        self.value(self.found.host)
    }

    /// `:path`, from `/`, or `*` with OPTIONS, of graphic bytes without `#`; only CONNECT has none.
    pub fn path(&self) -> Option<&'a [u8]> {
        self.value(self.found.path)
    }

    /// `:protocol`, a token, with CONNECT alone (RFC 8441, 4).
    pub fn protocol(&self) -> Option<&'a [u8]> {
        self.value(self.found.protocol)
    }

    /// `:status`: 100 to 999, and never 101; 0 in what is no response.
    pub fn status(&self) -> u16 {
        let digits = self.value(self.found.status).unwrap_or_default();
        digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
    }

    /// What `content-length` says.
    pub const fn content_length(&self) -> Option<u64> {
        self.found.length
    }

    /// All fields but pseudo header fields, as they came.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let fields = self.fields;
        (self.found.regular..fields.len()).filter_map(move |at| fields.get(at))
    }
}

/// Which pseudo header fields a message may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Request,
    Response,
    Trailers,
}

/// Looks at each field.
fn look(fields: &Fields, message: Message) -> Result<Found, Flaw> {
    let mut found = Found { regular: fields.len(), ..Found::default() };
    for (at, (known, flaw)) in fields.kinds().enumerate() {
        if known.is_pseudo() {
            if at > found.regular {
                return Err(Flaw::PseudoLate);
            }
            if message == Message::Trailers || (message == Message::Response) != (known == Known::Status) {
                return Err(Flaw::PseudoUnknown);
            }
        } else {
            found.regular = found.regular.min(at);
        }
        if let Some(flaw) = flaw {
            return Err(flaw);
        }
        let (place, twice) = match known {
            Known::Method => (&mut found.method, Flaw::PseudoTwice),
            Known::Scheme => (&mut found.scheme, Flaw::PseudoTwice),
            Known::Authority => (&mut found.authority, Flaw::PseudoTwice),
            Known::Path => (&mut found.path, Flaw::PseudoTwice),
            Known::Status => (&mut found.status, Flaw::PseudoTwice),
            Known::Protocol => (&mut found.protocol, Flaw::PseudoTwice),
            Known::Host if message == Message::Request => (&mut found.host, Flaw::Authority),
            Known::ContentLength => {
                let value = fields.get(at).map(|field| field.value).unwrap_or_default();
                let length = length(value).ok_or(Flaw::ContentLength)?;
                if found.length.replace(length).is_some() {
                    return Err(Flaw::ContentLength);
                }
                continue;
            }
            _ => continue,
        };
        if place.replace(at as u32).is_some() {
            return Err(twice);
        }
    }
    Ok(found)
}

/// Source: RFC 9113, 8.3.1 and 8.5, and RFC 8441, 4.
pub(crate) fn check_request(fields: &Fields, allows_protocols: bool, ends: bool) -> Result<Found, Flaw> {
    let found = look(fields, Message::Request)?;
    let head = Head::new(fields, found);
    let is_connect = head.method() == b"CONNECT";
    if found.method.is_none() {
        return Err(Flaw::PseudoMissing);
    }
    if found.protocol.is_some() && !(is_connect && allows_protocols) {
        return Err(Flaw::Protocol);
    }
    if is_connect && found.protocol.is_none() {
        return match (found.scheme, found.path, found.authority) {
            (None, None, Some(_)) => Ok(found),
            (None, None, None) => Err(Flaw::PseudoMissing),
            _ => Err(Flaw::PseudoUnknown),
        };
    }
    let (Some(_), Some(path)) = (found.scheme, head.path()) else { return Err(Flaw::PseudoMissing) };
    if found.authority.is_none() && (found.host.is_none() || is_connect) {
        return Err(Flaw::Authority);
    }
    if path.first() != Some(&b'/') && !(path == b"*" && head.method() == b"OPTIONS") {
        return Err(Flaw::Path);
    }
    if ends && found.length.is_some_and(|length| length > 0) { Err(Flaw::Length) } else { Ok(found) }
}

/// Source: RFC 9113, 8.1 and 8.3.2. `was_head`: it answers HEAD, and describes what it does not carry.
pub(crate) fn check_response(fields: &Fields, was_head: bool, ends: bool) -> Result<Found, Flaw> {
    let found = look(fields, Message::Response)?;
    if found.status.is_none() {
        return Err(Flaw::PseudoMissing);
    }
    let status = Head::new(fields, found).status();
    if ends && status < 200 {
        return Err(Flaw::Order);
    }
    let describes = was_head || matches!(status, 204 | 304);
    if ends && !describes && found.length.is_some_and(|length| length > 0) {
        return Err(Flaw::Length);
    }
    Ok(found)
}

/// Source: RFC 9113, 8.1.
pub(crate) fn check_trailers(fields: &Fields) -> Result<Found, Flaw> {
    look(fields, Message::Trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{check_name, check_value};

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new(1 << 16, 128);
        for (name, value) in list {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            let known = Known::of(name);
            let flaw = check_name(known, name).or_else(|| check_value(known, value));
            fields.push(name, value, known, flaw);
        }
        fields
    }

    const METHOD: (&str, &str) = (":method", "GET");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const AUTHORITY: (&str, &str) = (":authority", "a.test");
    const PATH: (&str, &str) = (":path", "/");
    const CONNECT: (&str, &str) = (":method", "CONNECT");
    const PROTOCOL: (&str, &str) = (":protocol", "websocket");

    /// Source: RFC 9113, 8.3.1, bad-input rows 41 to 43.
    #[test]
    fn requests() {
        use Flaw::*;
        for (list, expected) in [
            (&[METHOD, SCHEME, AUTHORITY, PATH][..], None),
            (&[PATH, AUTHORITY, SCHEME, METHOD, ("x", "")], None),
            (&[METHOD, SCHEME, PATH, ("host", "a")], None),
            (&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "b")], None),
            (&[(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")], None),
            (&[CONNECT, AUTHORITY], None),
            (&[CONNECT, PROTOCOL, SCHEME, AUTHORITY, PATH], None),
            (&[], Some(PseudoMissing)),
            (&[SCHEME, AUTHORITY, PATH], Some(PseudoMissing)),
            (&[METHOD, AUTHORITY, PATH], Some(PseudoMissing)),
            (&[METHOD, SCHEME, AUTHORITY], Some(PseudoMissing)),
            (&[METHOD, SCHEME, PATH], Some(Authority)),
            (&[METHOD, METHOD, SCHEME, AUTHORITY, PATH], Some(PseudoTwice)),
            (&[METHOD, SCHEME, SCHEME, AUTHORITY, PATH], Some(PseudoTwice)),
            (&[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH], Some(PseudoTwice)),
            (&[METHOD, SCHEME, AUTHORITY, PATH, PATH], Some(PseudoTwice)),
            (&[METHOD, SCHEME, AUTHORITY, ("x", "y"), PATH], Some(PseudoLate)),
            (&[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")], Some(PseudoUnknown)),
            (&[METHOD, SCHEME, AUTHORITY, PATH, (":x", "200")], Some(PseudoUnknown)),
            (&[METHOD, SCHEME, AUTHORITY, PATH, PROTOCOL], Some(Protocol)),
            (&[CONNECT, SCHEME, AUTHORITY, PATH], Some(PseudoUnknown)),
            (&[CONNECT, PROTOCOL, AUTHORITY], Some(PseudoMissing)),
            (&[CONNECT, PROTOCOL, SCHEME, PATH], Some(Authority)),
            (&[CONNECT], Some(PseudoMissing)),
            (&[METHOD, SCHEME, PATH, ("host", "a"), ("host", "a")], Some(Authority)),
            (&[METHOD, SCHEME, AUTHORITY, (":path", "*")], Some(Path)),
            (&[METHOD, SCHEME, AUTHORITY, (":path", "x")], Some(Path)),
            (&[METHOD, SCHEME, AUTHORITY, (":path", "http://a.test/")], Some(Path)),
            (&[METHOD, SCHEME, AUTHORITY, PATH, ("content-length", "5")], Some(Length)),
            (&[METHOD, SCHEME, AUTHORITY, PATH, ("content-length", "+5")], Some(ContentLength)),
            (
                &[METHOD, SCHEME, AUTHORITY, PATH, ("content-length", "0"), ("content-length", "0")],
                Some(ContentLength),
            ),
            (&[METHOD, SCHEME, AUTHORITY, PATH, ("te", "gzip")], Some(Te)),
            (&[METHOD, SCHEME, AUTHORITY, PATH, ("Upper", "x")], Some(Name)),
        ] {
            assert_eq!(check_request(&fields(list), true, true).err(), expected, "{list:?}");
        }
        let list = fields(&[CONNECT, PROTOCOL, SCHEME, AUTHORITY, PATH]);
        assert_eq!(check_request(&list, false, true).err(), Some(Protocol), "not said to be allowed");
    }

    #[test]
    fn responses_and_trailers() {
        use Flaw::*;
        let ok = (":status", "200");
        let long = ("content-length", "5");
        for (list, was_head, ends, expected) in [
            (&[ok][..], false, true, None),
            (&[ok, long], false, false, None),
            (&[ok, long], true, true, None),
            (&[(":status", "304"), long], false, true, None),
            (&[ok, long], false, true, Some(Length)),
            (&[(":status", "103")], false, true, Some(Order)),
            (&[("x", "y")], false, true, Some(PseudoMissing)),
            (&[ok, ok], false, true, Some(PseudoTwice)),
            (&[ok, METHOD], false, true, Some(PseudoUnknown)),
            (&[("x", "y"), ok], false, true, Some(PseudoLate)),
            (&[(":status", "101")], false, false, Some(Status)),
        ] {
            assert_eq!(check_response(&fields(list), was_head, ends).err(), expected, "{list:?}");
        }
        assert!(check_trailers(&fields(&[("grpc-status", "0")])).is_ok());
        assert_eq!(check_trailers(&fields(&[ok])).err(), Some(PseudoUnknown));
    }

    #[test]
    fn what_a_head_says() {
        let list = fields(&[METHOD, SCHEME, AUTHORITY, PATH, ("x", "1"), ("host", "b"), ("x", "2")]);
        let head = Head::new(&list, check_request(&list, true, true).unwrap());
        assert_eq!(
            (head.method(), head.scheme(), head.authority()),
            (&b"GET"[..], Some(&b"http"[..]), Some(&b"a.test"[..]))
        );
        assert_eq!(
            (head.path(), head.host(), head.protocol(), head.status()),
            (Some(&b"/"[..]), Some(&b"b"[..]), None, 0)
        );
        let values: Vec<_> = head.fields().map(|field| field.value).collect();
        assert_eq!(values, [b"1", b"b", b"2"]);
    }
}
