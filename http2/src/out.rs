//! What is to be sent: one buffer, into which each frame is written once.

/// See the module.
#[derive(Debug)]
pub(crate) struct Out {
    bytes: Vec<u8>,
    /// What was sent of them.
    start: usize,
    len_max: usize,
}

/// A buffer that is empty keeps as much memory.
const KEPT_BYTES_MAX: usize = 16 << 10;

impl Out {
    pub(crate) const fn new(len_max: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, len_max }
    }

    /// To be written behind.
    #[inline]
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What may be added; frames that are owed are added all the same.
    #[inline]
    pub(crate) const fn room(&self) -> usize {
        self.len_max.saturating_sub(self.bytes.len() - self.start)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.len() == self.start
    }

    pub(crate) fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn consume(&mut self, len: usize) {
        self.start = self.bytes.len().min(self.start + len);
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES_MAX);
            self.start = 0;
        } else if self.start > self.len_max / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Gives all, for an empty buffer.
    pub(crate) fn swap(&mut self, buffer: &mut Vec<u8>) {
        self.bytes.drain(..self.start);
        self.start = 0;
        buffer.clear();
        std::mem::swap(&mut self.bytes, buffer);
    }

    pub(crate) fn trim(&mut self) {
        if self.is_empty() {
            self.bytes = Vec::new();
            self.start = 0;
        }
    }

    /// Bytes on the heap.
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_gone() {
        let mut out = Out::new(8);
        out.buffer().extend_from_slice(b"0123456789");
        assert_eq!((out.room(), out.pending().len()), (0, 10));
        for (len, rest) in [(3, "3456789"), (3, "6789"), (1, "789")] {
            out.consume(len);
            assert_eq!(out.pending(), rest.as_bytes());
        }
        let mut buffer = Vec::new();
        out.swap(&mut buffer);
        assert_eq!((&*buffer, out.room()), (&b"789"[..], 8));
        out.consume(100);
        assert!(out.is_empty());
    }
}
