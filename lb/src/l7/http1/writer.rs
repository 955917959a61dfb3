//! Body bytes out.

/// How body bytes are framed on their way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyWriter {
    /// As they are.
    Raw,
    /// In chunks.
    Chunked,
}

/// What stands before the data of one chunk: at most 16 digits and CRLF.
#[derive(Clone, Copy, Debug)]
pub struct ChunkPrefix {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkPrefix {
    /// For a chunk of `len` bytes.
    pub fn new(len: u64) -> Self {
        let mut bytes = *b"0000000000000000\r\n";
        let mut start = 16;
        let mut left = len;
        for digit in bytes.iter_mut().take(16).rev() {
            *digit = b"0123456789abcdef"[(left & 15) as usize];
            start -= 1;
            left >>= 4;
            if left == 0 {
                break;
            }
        }
        Self { bytes, start }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(usize::from(self.start)..).unwrap_or_default()
    }
}

impl BodyWriter {
    /// Appends `data` with its framing. Empty data appends nothing: an empty chunk would end the body.
    pub fn frame(self, out: &mut Vec<u8>, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if let Some(prefix) = self.prefix(data.len() as u64) {
            out.extend_from_slice(prefix.as_bytes());
        }
        out.extend_from_slice(data);
        out.extend_from_slice(self.suffix());
    }

    /// What goes before `len > 0` bytes of data that are sent from elsewhere.
    pub fn prefix(self, len: u64) -> Option<ChunkPrefix> {
        debug_assert!(len > 0, "an empty chunk would end the body");
        (self == Self::Chunked).then(|| ChunkPrefix::new(len))
    }

    /// What goes after that data.
    pub const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Raw => b"",
            Self::Chunked => b"\r\n",
        }
    }

    /// What goes after the last data. Call it only when the body ended well: without it a chunked body is seen
    /// to be truncated, and must be if it was.
    pub const fn end(self) -> &'static [u8] {
        match self {
            Self::Raw => b"",
            Self::Chunked => b"0\r\n\r\n",
        }
    }

    /// Appends [`BodyWriter::end`].
    pub fn finish(self, out: &mut Vec<u8>) {
        self.finish_with(out, b"");
    }

    /// Appends the end with trailers, of [`BodyReader::trailers`](super::BodyReader::trailers) or made like those; what
    /// goes in no chunks has no place for any.
    pub fn finish_with(self, out: &mut Vec<u8>, trailers: &[u8]) {
        if trailers.is_empty() || self == Self::Raw {
            return out.extend_from_slice(self.end());
        }
        for part in [b"0\r\n", trailers, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_hex() {
        for len in [1, 9, 10, 15, 16, 255, 4096, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(ChunkPrefix::new(len).as_bytes(), format!("{len:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn frames() {
        let mut out = Vec::new();
        BodyWriter::Chunked.frame(&mut out, b"hello, world");
        BodyWriter::Chunked.frame(&mut out, b"");
        BodyWriter::Chunked.finish(&mut out);
        assert_eq!(out, b"c\r\nhello, world\r\n0\r\n\r\n");
        out.clear();
        BodyWriter::Raw.frame(&mut out, b"hello");
        BodyWriter::Raw.finish(&mut out);
        assert_eq!(out, b"hello");
        BodyWriter::Raw.finish_with(&mut out, b"x: y\r\n");
        assert_eq!(out, b"hello", "nothing but the body");
        out.clear();
        BodyWriter::Chunked.finish_with(&mut out, b"x: y\r\n");
        assert_eq!(out, b"0\r\nx: y\r\n\r\n");
    }
}
