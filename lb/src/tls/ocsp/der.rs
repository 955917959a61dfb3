//! As much of DER (X.690) as OCSP takes.

use x509_parser::asn1_rs::{Any, FromDer as _, GeneralizedTime};

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;

/// `[number]` around something whole.
pub(super) const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// Reads values one behind the other.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

/// One value.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    /// First byte of its tag: those that are longer are nowhere awaited.
    pub(super) tag: u8,
    /// With tag and length.
    pub(super) whole: &'a [u8],
    pub(super) content: &'a [u8],
}

impl<'a> Item<'a> {
    pub(super) const fn inside(self) -> Reader<'a> {
        Reader(self.content)
    }
}

impl<'a> Reader<'a> {
    /// The next one; `None`: there is none.
    pub(super) fn any(&mut self) -> Option<Item<'a>> {
        let before = self.0;
        let (rest, any) = Any::from_der(before).ok()?;
        self.0 = rest;
        let whole = before.get(..before.len() - rest.len())?;
        Some(Item { tag: *before.first()?, whole, content: any.data })
    }

    /// The next one, which must have this tag.
    pub(super) fn of(&mut self, tag: u8) -> Option<Item<'a>> {
        self.any().filter(|item| item.tag == tag)
    }

    /// The next one, if it has this tag.
    pub(super) fn maybe(&mut self, tag: u8) -> Option<Item<'a>> {
        if self.0.first() == Some(&tag) { self.any() } else { None }
    }

    /// A time, in seconds since 1970.
    pub(super) fn time(&mut self) -> Option<i64> {
        let time = GeneralizedTime::from_bytes(self.of(TIME)?.content).ok()?;
        Some(time.utc_datetime().ok()?.unix_timestamp())
    }

    /// Bits that fill bytes.
    pub(super) fn bits(&mut self) -> Option<&'a [u8]> {
        self.of(BIT_STRING)?.content.strip_prefix(&[0])
    }
}

/// A value with this tag, around all of these.
pub(super) fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let bytes = len.to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        out.push(0x80 | bytes.len() as u8);
        out.extend_from_slice(bytes);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}
