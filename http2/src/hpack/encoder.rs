//! Fields into blocks. Source: RFC 7541, 6.
//!
//! What both sides know is named by its index. What was sent once before is remembered the second time; what is secret
//! never is (RFC 7541, 7.1.3). The rest is written in full, in Huffman's code where that is shorter.

use super::{
    huffman, integer,
    seen::{Seen, hash},
    statics::{self, index},
    table::{New, OVERHEAD, Table},
};
use crate::field::{Known, is_lower_token, is_text};

/// What is remembered of one direction.
const TABLE_BYTES_MAX: usize = 2048;
/// The largest field that is remembered.
const ENTRY_BYTES_MAX: usize = 256;
/// The table of a peer that has said nothing (RFC 9113, 6.5.2).
const SIZE_AT_FIRST: usize = 4096;
/// Names up to this are made lower case without an allocation.
const NAME_BYTES: usize = 64;
/// How a field is written: RFC 7541, 6.2.
const PLAIN: (u8, u8) = (0x00, 4);
const NEVER_INDEXED: (u8, u8) = (0x10, 4);
const REMEMBERED: (u8, u8) = (0x40, 6);

/// What writes all blocks of one direction.
#[derive(Debug)]
pub(crate) struct Encoder {
    table: Table,
    seen: Seen,
    /// Sizes that the next block begins with: the smallest there was, and the last (RFC 7541, 4.2).
    resize: Option<(usize, usize)>,
}

/// A name or value that nobody may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The pseudo header fields of a request. What is empty is left out. Whoever gives them has looked at them: no line ends, no
/// NUL, no spaces.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `:method`
    pub method: &'a [u8],
    /// `:scheme`
    pub scheme: &'a [u8],
    /// `:authority`
    pub authority: &'a [u8],
    /// `:path`
    pub path: &'a [u8],
    /// `:protocol` (RFC 8441, 4)
    pub protocol: &'a [u8],
}

impl Encoder {
    pub(crate) fn new() -> Self {
        let resize = Some((TABLE_BYTES_MAX, TABLE_BYTES_MAX));
        let mut encoder = Self { table: Table::new(SIZE_AT_FIRST), seen: Seen::default(), resize };
        encoder.table.resize(TABLE_BYTES_MAX);
        encoder
    }

    /// The peer's table may be as large as this.
    pub(crate) fn resize(&mut self, size_max: usize) {
        let size = size_max.min(TABLE_BYTES_MAX);
        if size == self.table.size_max() {
            return;
        }
        self.table.resize(size);
        let least = self.resize.map_or(size, |(least, _)| least.min(size));
        self.resize = Some((least, size));
    }

    /// Begins a block.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, last)) = self.resize.take() {
            if least < last {
                integer::put(out, 0x20, 5, least);
            }
            integer::put(out, 0x20, 5, last);
        }
    }

    /// `:status`.
    pub(crate) fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        if let Some(index) = statics::status(status) {
            out.push(0x80 | index);
            return;
        }
        let digit = |place: u16| b'0' + (status / place % 10) as u8;
        self.field(index::STATUS_200, b":status", &[digit(100), digit(10), digit(1)], out);
    }

    /// All of a request's that are not empty.
    pub(crate) fn request(&mut self, request: &Request<'_>, out: &mut Vec<u8>) {
        match request.method {
            b"GET" => out.push(0x80 | index::METHOD_GET),
            b"POST" => out.push(0x80 | index::METHOD_POST),
            other => self.field(index::METHOD_GET, b":method", other, out),
        }
        match request.scheme {
            b"" => {}
            b"http" => out.push(0x80 | index::SCHEME_HTTP),
            b"https" => out.push(0x80 | index::SCHEME_HTTPS),
            other => self.field(index::SCHEME_HTTP, b":scheme", other, out),
        }
        match request.path {
            b"" => {}
            b"/" => out.push(0x80 | index::PATH_ROOT),
            other => self.field(index::PATH_ROOT, b":path", other, out),
        }
        if !request.authority.is_empty() {
            self.field(index::AUTHORITY, b":authority", request.authority, out);
        }
        if !request.protocol.is_empty() {
            self.field(0, b":protocol", request.protocol, out);
        }
    }

    /// A field that is no secret; `index`: one that has the same name among those that both know, or 0.
    fn field(&mut self, index: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let hash = self.hash(name, value);
        if !self.known(hash, name, value, out) {
            self.unknown(hash, index, name, value, out);
        }
    }

    /// What finds a field again; `None`: it is too large to be remembered.
    #[inline]
    fn hash(&self, name: &[u8], value: &[u8]) -> Option<u32> {
        let len = name.len() + value.len() + OVERHEAD;
        let is_small = len <= ENTRY_BYTES_MAX && len <= self.table.size_max();
        is_small.then(|| hash(name, value))
    }

    /// Names a field that is remembered by its index; whether it is.
    #[inline]
    fn known(&self, hash: Option<u32>, name: &[u8], value: &[u8], out: &mut Vec<u8>) -> bool {
        let at = hash.and_then(|hash| self.table.find(hash, name, value));
        if let Some(at) = at {
            integer::put(out, 0x80, 7, statics::COUNT + 1 + at);
        }
        at.is_some()
    }

    /// Writes a field that is not remembered in full; the second time it is from now on.
    fn unknown(&mut self, hash: Option<u32>, index: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if let Some(hash) = hash.filter(|&hash| self.seen.again(hash)) {
            literal(REMEMBERED, index, name, value, out);
            self.table.insert(&New { name, value, hash, known: Known::Other, flaw: None });
        } else {
            literal(PLAIN, index, name, value, out);
        }
    }

    /// Gives back the memory that it has no use for.
    pub(crate) fn trim(&mut self) {
        self.table.trim();
        self.seen.trim();
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.seen.heap_bytes()
    }
}

/// Source: RFC 7541, 6.2.
fn literal((flags, bits): (u8, u8), index: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    integer::put(out, flags, bits, index.into());
    if index == 0 {
        text(name, out);
    }
    text(value, out);
}

/// Source: RFC 7541, 5.2.
fn text(text: &[u8], out: &mut Vec<u8>) {
    const CODED: u8 = 0x80;
    let coded_len = huffman::coded_len(text);
    if coded_len < text.len() {
        integer::put(out, CODED, 7, coded_len);
        huffman::encode(text, out);
    } else {
        integer::put(out, 0, 7, text.len());
        out.extend_from_slice(text);
    }
}

/// Takes the fields of a head, one at a time, and writes them where they belong.
#[derive(Debug)]
pub struct FieldWriter<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Vec<u8>,
}

impl<'a> FieldWriter<'a> {
    pub(crate) const fn new(encoder: &'a mut Encoder, out: &'a mut Vec<u8>) -> Self {
        Self { encoder, out }
    }

    /// Writes a field. Its name may be in any case; what surrounds the value is left out, and so are fields of a connection
    /// of HTTP/1, `host` among them, and a `te` that is not `trailers` (RFC 9113, 8.2.2).
    ///
    /// # Errors
    /// The name is no token, or the value has what none may have: nothing was written.
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        self.push_any(name, value, false)
    }

    /// The same of a field that nobody is to remember (RFC 7541, 6.2.3). Credentials are written so in any case.
    ///
    /// # Errors
    /// See [`FieldWriter::push`].
    pub fn push_secret(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        self.push_any(name, value, true)
    }

    #[inline]
    fn push_any(&mut self, name: &[u8], value: &[u8], is_secret: bool) -> Result<(), Refused> {
        let mut short = [0; NAME_BYTES];
        let long;
        let name = if let Some(lower) = short.get_mut(..name.len()) {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            &*lower
        } else {
            long = name.to_ascii_lowercase();
            &*long
        };
        let value = value.trim_ascii();
        // A pseudo header field is none of these, whatever is remembered of it.
        if name.first() == Some(&b':') {
            return Err(Refused);
        }
        // What is remembered has been looked at.
        let hash = self.encoder.hash(name, value);
        if is_secret || !self.encoder.known(hash, name, value, self.out) {
            if !is_lower_token(name) || !is_text(value) {
                return Err(Refused);
            }
            self.push_unknown(hash, name, value, is_secret);
        }
        Ok(())
    }

    fn push_unknown(&mut self, hash: Option<u32>, name: &[u8], value: &[u8], is_secret: bool) {
        let is_secret = match Known::of(name) {
            Known::OfConnection | Known::Host => return,
            Known::Te if !value.eq_ignore_ascii_case(b"trailers") => return,
            Known::Authorization | Known::SetCookie => true,
            // Short ones can be guessed (RFC 7541, 7.1.3).
            Known::Cookie => is_secret || value.len() < 20,
            _ => is_secret,
        };
        let index = statics::name(name);
        if is_secret {
            literal(NEVER_INDEXED, index, name, value, self.out);
        } else if index == index::ACCEPT_ENCODING && value == b"gzip, deflate" {
            self.out.push(0x80 | index);
        } else {
            self.encoder.unknown(hash, index, name, value, self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{fields::Fields, hpack::Decoder};

    fn block(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        let mut writer = FieldWriter::new(encoder, &mut out);
        for (name, value) in fields {
            writer.push(name.as_bytes(), value.as_bytes()).unwrap();
        }
        out
    }

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Fields::new(1 << 20, 1000);
        decoder.decode(block, &mut fields).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = (0..fields.len()).filter_map(|at| fields.get(at));
        fields.map(|field| (text(field.name), text(field.value))).collect()
    }

    #[test]
    fn what_comes_again_becomes_short() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let fields = [("X-Name", " some value "), ("server", "lb"), ("Te", "gzip"), ("Connection", "close")];
        let expected =
            [("x-name", "some value"), ("server", "lb")].map(|(name, value)| (name.into(), value.into()));
        let lens = [1, 2, 3].map(|_| {
            let block = block(&mut encoder, &fields);
            assert_eq!(decoded(&mut decoder, &block), expected);
            block.len()
        });
        assert!(lens[0] > 10 && lens[2] == 2, "{lens:?}");
    }

    #[test]
    fn secrets_are_not_remembered() {
        let mut encoder = Encoder::new();
        let _ = block(&mut encoder, &[]);
        for (name, first) in
            [("authorization", 0x1f), ("proxy-authorization", 0x1f), ("cookie", 0x1f), ("set-cookie", 0x1f)]
        {
            for _ in 0..3 {
                let block = block(&mut encoder, &[(name, "a=b")]);
                assert_eq!(block[0], first, "{name}: {block:x?}");
            }
        }
        assert_eq!(encoder.table.heap_bytes(), 0);
        let mut out = Vec::new();
        for expected in [0, 0x40, 0xbe, 0xbe] {
            out.clear();
            FieldWriter::new(&mut encoder, &mut out).push_secret(b"X-Key", b"y").unwrap();
            assert_eq!(out[0], 0x10, "even where it is remembered");
            out.clear();
            FieldWriter::new(&mut encoder, &mut out).push(b"X-Key", b"y").unwrap();
            assert_eq!(out[0], expected);
        }
    }

    #[test]
    fn what_nobody_may_send() {
        let (mut encoder, mut out) = (Encoder::new(), Vec::new());
        (0..2).for_each(|_| encoder.field(index::PATH_ROOT, b":path", b"x", &mut out));
        out.clear();
        let mut writer = FieldWriter::new(&mut encoder, &mut out);
        for (name, value) in [("", "x"), ("a b", "x"), (":path", "x"), ("x", "a\r\nb: c"), ("x", "a\0b")] {
            assert_eq!(writer.push(name.as_bytes(), value.as_bytes()), Err(Refused), "{name}: {value}");
        }
        assert!(out.is_empty());
    }

    #[test]
    fn the_peer_says_how_much_it_remembers() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let again = |encoder: &mut Encoder| block(encoder, &[("x", "y")]);
        assert_eq!(again(&mut encoder)[..3], [0x3f, 0xe1, 0x0f]);
        (0..2).for_each(|_| drop(again(&mut encoder)));
        encoder.resize(0);
        encoder.resize(100);
        let block = again(&mut encoder);
        assert_eq!(block[..3], [0x20, 0x3f, 69]);
        assert_eq!(decoded(&mut decoder, &block), [("x".into(), "y".into())]);
        encoder.resize(0);
        assert_eq!(again(&mut encoder)[0], 0x20);
        assert_eq!(again(&mut encoder)[0], 0, "nothing is remembered");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            blocks in prop::collection::vec(
                prop::collection::vec(("(te|x|[a-z]{1,3}|date|cookie)", "(trailers|[ -~]{0,40}|aaaa)", 0..4_u8), 0..6),
                1..12,
            ),
        ) {
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
            for fields in blocks {
                for (_, _, size) in fields.iter().filter(|(_, _, size)| *size > 1) {
                    encoder.resize(usize::from(*size) * 40);
                }
                let fields: Vec<_> = fields.iter().map(|(name, value, _)| (&**name, &**value)).collect();
                let block = block(&mut encoder, &fields);
                let expected: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.trim().to_owned()))
                    .filter(|(name, value)| name != "te" || value == "trailers")
                    .collect();
                prop_assert_eq!(decoded(&mut decoder, &block), expected);
            }
        }
    }
}
