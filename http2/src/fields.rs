//! Decoded fields: all bytes behind one another, used again for each head.

use crate::field::{Flaw, Known};

/// What a field costs beside its bytes (RFC 9113, 6.5.2).
const OVERHEAD: usize = 32;

/// A buffer that is empty keeps as much memory.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// More than was allowed. What of the list came before stands there; the rest was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// Bytes, counted as RFC 9113, 6.5.2 does.
    Bytes,
    /// Fields.
    Count,
}

/// A list of fields as it came.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    /// What the list costs, as RFC 9113, 6.5.2 counts.
    size: usize,
    size_max: usize,
    count_max: usize,
    too_large: Option<TooLarge>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    name_len: u32,
    value_len: u32,
    known: Known,
    flaw: Option<Flaw>,
    is_secret: bool,
}

/// One of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// In lower case, of bytes of a token.
    pub name: &'a [u8],
    /// Without line ends, NUL, or spaces at its ends; it may be empty.
    pub value: &'a [u8],
    /// Which it is.
    pub known: Known,
    /// Whoever passes it on is to let nobody remember it either (RFC 7541, 6.2.3): see
    /// [`FieldWriter::push_secret`](crate::FieldWriter::push_secret).
    pub is_secret: bool,
}

impl Fields {
    pub(crate) fn new(size_max: usize, count_max: usize) -> Self {
        Self { size_max, count_max, ..Self::default() }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.spans.clear();
        self.size = 0;
        self.too_large = None;
    }

    pub(crate) const fn too_large(&self) -> Option<TooLarge> {
        self.too_large
    }

    /// Whether there is room for a field of so many bytes; if not, nothing more is kept.
    #[inline]
    pub(crate) fn admits(&mut self, len: usize) -> bool {
        if self.too_large.is_none() {
            self.size += len + OVERHEAD;
            if self.size > self.size_max {
                self.too_large = Some(TooLarge::Bytes);
            } else if self.spans.len() == self.count_max {
                self.too_large = Some(TooLarge::Count);
            }
        }
        self.too_large.is_none()
    }

    /// Where a field is written that is not whole yet.
    pub(crate) fn begin(&mut self) -> (usize, &mut Vec<u8>) {
        (self.bytes.len(), &mut self.bytes)
    }

    /// The name and the value that were written from `start`, the latter from `value_start`.
    pub(crate) fn written(&self, start: usize, value_start: usize) -> (&[u8], &[u8]) {
        let name = self.bytes.get(start..value_start).unwrap_or_default();
        (name, self.bytes.get(value_start..).unwrap_or_default())
    }

    /// Keeps what was written, or throws it away where there is too much.
    pub(crate) fn finish(
        &mut self,
        start: usize,
        value_start: usize,
        known: Known,
        flaw: Option<Flaw>,
        is_secret: bool,
    ) {
        if self.admits(self.bytes.len() - start) {
            let (name_len, value_len) = (value_start - start, self.bytes.len() - value_start);
            self.keep(start, name_len, value_len, known, flaw);
            if let Some(span) = self.spans.last_mut() {
                span.is_secret = is_secret;
            }
        } else {
            self.bytes.truncate(start);
        }
    }

    /// Keeps a field.
    #[inline]
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8], known: Known, flaw: Option<Flaw>) {
        if self.admits(name.len() + value.len()) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(name);
            self.bytes.extend_from_slice(value);
            self.keep(start, name.len(), value.len(), known, flaw);
        }
    }

    /// Keeps a field whose value stands behind its name.
    #[inline]
    pub(crate) fn push_joined(&mut self, joined: &[u8], name_len: usize, known: Known, flaw: Option<Flaw>) {
        if self.admits(joined.len()) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(joined);
            self.keep(start, name_len, joined.len().saturating_sub(name_len), known, flaw);
        }
    }

    #[inline]
    fn keep(&mut self, start: usize, name_len: usize, value_len: usize, known: Known, flaw: Option<Flaw>) {
        let (start, name_len, value_len) = (start as u32, name_len as u32, value_len as u32);
        self.spans.push(Span { start, name_len, value_len, known, flaw, is_secret: false });
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// What each field is, and what is wrong with it.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (Known, Option<Flaw>)> {
        self.spans.iter().map(|span| (span.known, span.flaw))
    }

    /// The field at a place.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<Field<'_>> {
        let span = self.spans.get(at)?;
        let start = span.start as usize;
        let name_end = start + span.name_len as usize;
        let name = self.bytes.get(start..name_end)?;
        let value = self.bytes.get(name_end..name_end + span.value_len as usize)?;
        Some(Field { name, value, known: span.known, is_secret: span.is_secret })
    }

    /// Gives back the memory.
    pub(crate) fn trim(&mut self) {
        self.bytes = Vec::new();
        self.spans = Vec::new();
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }
}
