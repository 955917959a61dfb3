//! The framing of chunked bodies, byte by byte. Source: RFC 9112, 7.1.
//!
//! ```text
//! Size -> (Extension..) -> SizeLf -> Data -> DataCr -> DataLf -> Size
//!                            | size 0
//!                            v
//!                     LineStart -> TrailerName -> TrailerValue -> TrailerLf -> LineStart
//!                            | CR
//!                            v
//!                          EndLf -> Done
//! ```
//! Stricter than the RFC: no white space around the size or within extensions.

use crate::{
    l7::headers::{FieldKind, KNOWN_NAME_BYTES_MAX, is_tchar, is_value_byte},
    model::reason::CloseReason,
};

/// Digits of a chunk size.
const SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of chunk extensions in one body. Source: bad-input row 27, after CVE-2023-39326.
const EXTENSION_BYTES_MAX: u32 = 16 << 10;
/// Bytes of trailers in one body.
const TRAILER_BYTES_MAX: u32 = 8 << 10;

/// Where the machine stands: each variant says what the next byte may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Size {
        digits: u8,
    },
    Extension(Extension),
    SizeLf,
    /// `left` bytes of data; never 0.
    Data,
    DataCr,
    DataLf,
    LineStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Within `;name=value;name="value"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    /// After `;`: the first byte of a name.
    NameStart,
    Name,
    /// After `=`.
    ValueStart,
    Token,
    Quoted,
    /// After a backslash within quotes.
    Escaped,
    /// After the closing quote.
    QuoteEnd,
}

/// Chunk framing on the way in.
#[derive(Clone, Debug)]
pub(super) struct ChunkReader {
    pub(super) at: At,
    /// Size read so far, then data left in this chunk.
    pub(super) left: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
    name: [u8; KNOWN_NAME_BYTES_MAX],
    /// Length of the name, which may be beyond what `name` keeps.
    name_len: u16,
    /// Trailer lines as they came, where somebody takes them.
    pub(super) trailers: Option<Vec<u8>>,
}

impl ChunkReader {
    pub(super) const fn new() -> Self {
        Self {
            at: At::Size { digits: 0 },
            left: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            name: [0; KNOWN_NAME_BYTES_MAX],
            name_len: 0,
            trailers: None,
        }
    }

    /// Takes framing from the front of `input` until data begins, the body ends, or the input does; says how
    /// much it took.
    pub(super) fn take_framing(&mut self, input: &[u8]) -> Result<usize, CloseReason> {
        for (taken, &byte) in input.iter().enumerate() {
            if matches!(self.at, At::Data | At::Done) {
                return Ok(taken);
            }
            self.at = self.step(byte)?;
        }
        Ok(input.len())
    }

    /// Notes that `len <= left` bytes of data were taken.
    pub(super) fn take_data(&mut self, len: u64) {
        self.left -= len;
        if self.left == 0 {
            self.at = At::DataCr;
        }
    }

    fn step(&mut self, byte: u8) -> Result<At, CloseReason> {
        let broken = Err(CloseReason::Chunk);
        match (self.at, byte) {
            (At::Size { digits }, _) => self.size(digits, byte),
            (At::Extension(at), _) => self.extension(at, byte),
            (At::SizeLf, b'\n') if self.left > 0 => Ok(At::Data),
            (At::SizeLf, b'\n') => Ok(At::LineStart),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size { digits: 0 }),
            (At::LineStart, b'\r') => Ok(At::EndLf),
            (At::EndLf, b'\n') => Ok(At::Done),
            (At::LineStart | At::TrailerName | At::TrailerValue | At::TrailerLf, _) => {
                let next = self.trailer(byte)?;
                self.trailers.iter_mut().for_each(|kept| kept.push(byte));
                Ok(next)
            }
            (At::SizeLf | At::DataCr | At::DataLf | At::EndLf | At::Data | At::Done, _) => broken,
        }
    }

    fn size(&mut self, digits: u8, byte: u8) -> Result<At, CloseReason> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(At::SizeLf),
            b';' if digits > 0 => return self.count_extension(Extension::NameStart),
            _ => return Err(CloseReason::Chunk),
        };
        self.left = (if digits == 0 { 0 } else { self.left << 4 }) | u64::from(digit);
        if digits == SIZE_DIGITS_MAX || self.left > i64::MAX as u64 {
            return Err(CloseReason::Chunk);
        }
        Ok(At::Size { digits: digits + 1 })
    }

    fn extension(&mut self, at: Extension, byte: u8) -> Result<At, CloseReason> {
        use Extension::{Escaped, Name, NameStart, QuoteEnd, Quoted, Token, ValueStart};
        let next = match (at, byte) {
            (Name | Token | QuoteEnd, b'\r') => return Ok(At::SizeLf),
            (Name | Token | QuoteEnd, b';') => NameStart,
            (Name, b'=') => ValueStart,
            (ValueStart, b'"') => Quoted,
            (Quoted, b'"') => QuoteEnd,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, _) if is_value_byte(byte) => Quoted,
            (NameStart | Name, _) if is_tchar(byte) => Name,
            (ValueStart | Token, _) if is_tchar(byte) => Token,
            _ => return Err(CloseReason::Chunk),
        };
        self.count_extension(next)
    }

    fn count_extension(&mut self, next: Extension) -> Result<At, CloseReason> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(CloseReason::Chunk);
        }
        Ok(At::Extension(next))
    }

    /// Trailers are checked whether or not anybody takes them.
    fn trailer(&mut self, byte: u8) -> Result<At, CloseReason> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(CloseReason::Trailer);
        }
        match (self.at, byte) {
            (At::LineStart, _) if is_tchar(byte) => {
                self.name_len = 0;
                self.keep_name(byte);
                Ok(At::TrailerName)
            }
            (At::TrailerName, b':') => {
                let name = self.name.get(..usize::from(self.name_len)).unwrap_or_default();
                let is_allowed = name.is_empty() || FieldKind::of(name).is_allowed_in_trailer();
                if is_allowed { Ok(At::TrailerValue) } else { Err(CloseReason::Trailer) }
            }
            (At::TrailerName, _) if is_tchar(byte) => {
                self.keep_name(byte);
                Ok(At::TrailerName)
            }
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, _) if is_value_byte(byte) => Ok(At::TrailerValue),
            (At::TrailerLf, b'\n') => Ok(At::LineStart),
            _ => Err(CloseReason::Chunk),
        }
    }

    /// A name longer than the buffer is none that matters; only its length goes on.
    fn keep_name(&mut self, byte: u8) {
        if let Some(slot) = self.name.get_mut(usize::from(self.name_len)) {
            *slot = byte;
        }
        self.name_len = self.name_len.saturating_add(1);
    }
}
