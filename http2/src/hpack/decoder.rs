//! Blocks into fields. Source: RFC 7541, 3.2 and 6.

use super::{
    Error, huffman, integer, statics,
    table::{New, Table},
};
use crate::{
    field::{Flaw, Known, check_name, check_value},
    fields::Fields,
};

/// What reads all blocks of one direction.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
    /// What the peer may make its table as large as.
    size_limit: usize,
    /// The limit was made smaller: the next block begins with a size (RFC 7541, 4.2).
    must_resize: bool,
}

impl Decoder {
    /// Before any of the peer's SETTINGS: RFC 9113, 6.5.2.
    pub(crate) const SIZE_AT_FIRST: usize = 4096;

    pub(crate) fn new() -> Self {
        Self { table: Table::new(Self::SIZE_AT_FIRST), size_limit: Self::SIZE_AT_FIRST, must_resize: false }
    }

    /// The peer has taken note of our limit.
    pub(crate) fn limit(&mut self, size_limit: usize) {
        self.size_limit = size_limit;
        self.must_resize = self.table.size_max() > size_limit;
    }

    /// Takes a whole block. What is too much for `out` is read, too: the table depends on it.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn decode(&mut self, block: &[u8], out: &mut Fields) -> Result<(), Error> {
        let mut rest = block;
        self.resize(&mut rest)?;
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                self.indexed(&mut rest, out)?;
            } else if first & 0x40 != 0 {
                self.literal(&mut rest, 6, out)?;
            } else if first & 0x20 != 0 {
                // Behind a field: RFC 7541, 4.2.
                return Err(Error::TableSize);
            } else {
                self.literal(&mut rest, 4, out)?;
            }
        }
        Ok(())
    }

    /// Source: RFC 7541, 6.3.
    fn resize(&mut self, rest: &mut &[u8]) -> Result<(), Error> {
        while let Some(&first) = rest.first()
            && first & 0xe0 == 0x20
        {
            let size = integer::take(rest, 5)?;
            if size > self.size_limit {
                return Err(Error::TableSize);
            }
            self.table.resize(size);
            self.must_resize = false;
        }
        if self.must_resize { Err(Error::TableSize) } else { Ok(()) }
    }

    /// Source: RFC 7541, 6.1.
    #[inline]
    fn indexed(&mut self, rest: &mut &[u8], out: &mut Fields) -> Result<(), Error> {
        let index = integer::take(rest, 7)?;
        if let Some((name, value)) = statics::field(index) {
            out.push(name, value, known_static(index), flaw_static(index));
            return Ok(());
        }
        let index = index.checked_sub(statics::COUNT + 1).ok_or(Error::Index)?;
        let (entry, joined) = self.table.get_joined(index).ok_or(Error::Index)?;
        out.push_joined(joined, entry.name_len(), entry.known, entry.flaw);
        Ok(())
    }

    /// Source: RFC 7541, 6.2.
    fn literal(&mut self, rest: &mut &[u8], bits: u8, out: &mut Fields) -> Result<(), Error> {
        let is_secret = bits == 4 && rest.first().is_some_and(|first| first & 0x10 != 0);
        let index = integer::take(rest, bits)?;
        let (start, bytes) = out.begin();
        let mut known = None;
        // Whoever remembers a name has looked at it.
        let mut is_sound =
            index <= statics::COUNT && index != 0 && flaw_static(index) != Some(Flaw::OfConnection);
        if index == 0 {
            text(rest, bytes)?;
        } else if let Some((name, _)) = statics::field(index) {
            bytes.extend_from_slice(name);
            known = Some(known_static(index));
        } else {
            let index = index.checked_sub(statics::COUNT + 1).ok_or(Error::Index)?;
            let (entry, name, _) = self.table.get(index).ok_or(Error::Index)?;
            bytes.extend_from_slice(name);
            known = Some(entry.known);
            is_sound = entry.flaw.is_none();
        }
        let value_start = bytes.len();
        text(rest, bytes)?;
        let (name, value) = out.written(start, value_start);
        let known = known.unwrap_or_else(|| Known::of(name));
        let flaw = if is_sound { None } else { check_name(known, name) };
        let flaw = flaw.or_else(|| check_value(known, value));
        if bits == 6 {
            self.table.insert(&New { name, value, hash: 0, known, flaw });
        }
        out.finish(start, value_start, known, flaw, is_secret);
        Ok(())
    }

    /// Gives back the memory that it has no use for.
    pub(crate) fn trim(&mut self) {
        self.table.trim();
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.table.heap_bytes()
    }
}

/// Source: RFC 7541, 5.2.
#[inline]
fn text(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let is_coded = rest.first().ok_or(Error::Short)? & 0x80 != 0;
    let len = integer::take(rest, 7)?;
    let (text, more) = rest.split_at_checked(len).ok_or(Error::Short)?;
    *rest = more;
    if is_coded {
        huffman::decode(text, out)
    } else {
        out.extend_from_slice(text);
        Ok(())
    }
}

/// What is wrong with a field that both know: one is of a connection of HTTP/1, and one may not be empty.
const fn flaw_static(index: usize) -> Option<Flaw> {
    match index {
        1 => Some(Flaw::Authority),
        57 => Some(Flaw::OfConnection),
        _ => None,
    }
}

/// The name at an index of the table that both know.
const fn known_static(index: usize) -> Known {
    match index {
        1 => Known::Authority,
        2 | 3 => Known::Method,
        4 | 5 => Known::Path,
        6 | 7 => Known::Scheme,
        8..=14 => Known::Status,
        23 | 49 => Known::Authorization,
        28 => Known::ContentLength,
        32 => Known::Cookie,
        38 => Known::Host,
        55 => Known::SetCookie,
        57 => Known::OfConnection,
        _ => Known::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::TooLarge;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn text(fields: &Fields) -> Vec<String> {
        let fields = (0..fields.len()).filter_map(|at| fields.get(at));
        fields
            .map(|field| {
                format!("{}: {}", String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value))
            })
            .collect()
    }

    fn decode(decoder: &mut Decoder, hex: &str) -> Result<Vec<String>, Error> {
        let mut fields = Fields::new(1 << 16, 128);
        decoder.decode(&bytes(hex), &mut fields).map(|()| text(&fields))
    }

    /// Source: RFC 7541, C.2.
    #[test]
    fn fields_in_each_way() {
        for (hex, expected, is_kept) in [
            (
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                "custom-key: custom-header",
                true,
            ),
            ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", false),
            ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", false),
            ("82", ":method: GET", false),
        ] {
            let mut fields = Fields::new(1 << 16, 128);
            Decoder::new().decode(&bytes(hex), &mut fields).unwrap();
            assert_eq!(fields.get(0).map(|field| field.is_secret), Some(hex.starts_with("10")), "{hex}");
            let mut decoder = Decoder::new();
            assert_eq!(decode(&mut decoder, hex).unwrap(), [expected]);
            assert_eq!(decode(&mut decoder, "be").ok(), is_kept.then(|| vec![expected.to_owned()]));
        }
    }

    const REQUESTS: [&[&str]; 3] = [
        &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
        &[
            ":method: GET",
            ":scheme: http",
            ":path: /",
            ":authority: www.example.com",
            "cache-control: no-cache",
        ],
        &[
            ":method: GET",
            ":scheme: https",
            ":path: /index.html",
            ":authority: www.example.com",
            "custom-key: custom-value",
        ],
    ];

    /// Source: RFC 7541, C.3 and C.4.
    #[test]
    fn requests() {
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::new();
            for (hex, expected) in blocks.into_iter().zip(REQUESTS) {
                assert_eq!(decode(&mut decoder, hex).unwrap(), expected);
            }
        }
    }

    /// Source: RFC 7541, C.5 and C.6: with a table of 256 bytes, out of which fields go.
    #[test]
    fn responses() {
        let third = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let (early, late) = ("date: Mon, 21 Oct 2013 20:13:21 GMT", "date: Mon, 21 Oct 2013 20:13:22 GMT");
        let location = "location: https://www.example.com";
        let expected: [&[&str]; 3] = [
            &[":status: 302", "cache-control: private", early, location],
            &[":status: 307", "cache-control: private", early, location],
            &[":status: 200", "cache-control: private", late, location, "content-encoding: gzip", third],
        ];
        for blocks in [
            [
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 \
                 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "4803 3330 37c1 c0bf",
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a \
                 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d \
                 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            ],
            [
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d \
                 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                "4883 640e ffc1 c0bf",
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d \
                 d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 \
                 3d50 07",
            ],
        ] {
            let mut decoder = Decoder::new();
            decoder.limit(256);
            for (at, (hex, expected)) in blocks.into_iter().zip(expected).enumerate() {
                // A table of 256 bytes is what the examples take for granted.
                let hex = if at == 0 { format!("3fe1 01 {hex}") } else { hex.to_owned() };
                assert_eq!(decode(&mut decoder, &hex).unwrap(), expected);
            }
            assert_eq!(decode(&mut decoder, "c1"), Err(Error::Index), "three fields are left");
        }
    }

    #[test]
    fn what_is_no_block() {
        for (hex, error) in [
            ("80", Error::Index),
            ("be", Error::Index),
            ("7f40 0161", Error::Index),
            ("ffff ffff ffff ff", Error::Number),
            ("3fff ffff 7f", Error::TableSize),
            ("3fe2 1f", Error::TableSize),
            ("8220", Error::TableSize),
            ("0005 61", Error::Short),
            ("00", Error::Short),
            ("0001 61", Error::Short),
            ("0081 ff84 ffff ffff", Error::Huffman),
        ] {
            assert_eq!(decode(&mut Decoder::new(), hex), Err(error), "{hex}");
        }
        let mut decoder = Decoder::new();
        decoder.limit(100);
        assert_eq!(decode(&mut decoder, "82"), Err(Error::TableSize), "it has to be made smaller first");
        assert_eq!(decode(&mut decoder, "2020 82").unwrap(), [":method: GET"]);
    }

    /// The block goes on for the table's sake; of what it says nothing more is kept.
    #[test]
    fn too_much_is_passed_over() {
        let entry = format!("4001 787f a11e {}", "61".repeat(4000));
        for (size_max, count_max, expected) in
            [(10_000, 128, TooLarge::Bytes), (1 << 20, 20, TooLarge::Count)]
        {
            let mut decoder = Decoder::new();
            let mut fields = Fields::new(size_max, count_max);
            decoder.decode(&bytes(&format!("{entry}{}", "be".repeat(10_000))), &mut fields).unwrap();
            assert_eq!(fields.too_large(), Some(expected));
            assert!(fields.len() <= 20 && fields.heap_bytes() < 1 << 18, "{}", fields.heap_bytes());
            fields.clear();
            decoder.decode(&[0xbe], &mut fields).unwrap();
            assert_eq!((fields.len(), fields.too_large()), (1, None));
        }
    }
}
