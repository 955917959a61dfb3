//! What the packet path may do to a packet.

use crate::checksum::Sum;

/// A frame, from its Ethernet header on.
///
/// Bytes are read and written as 16-bit words as they lie there, that is in network order: frames begin on an
/// even address and headers have even lengths, and BPF code made of words is small, where byte arrays are
/// taken apart and put together again byte by byte. Where more is wanted at once, double (32 bits) and quad words
/// (64 bits) are; they may begin on any even address. All offsets are from the present first byte;
/// [`Packet::move_head`] shifts them.
pub trait Packet {
    /// Bytes from the Ethernet header on that lie together: all of them, or of a jumbo frame those in its first buffer.
    /// Only these are read and written.
    fn len(&self) -> usize;

    /// Bytes of the frame in all its buffers. Dearer than [`Packet::len`].
    fn total_len(&self) -> usize;

    /// Bytes of the frame in all its buffers, if it is known to have at least `known`; looks at other buffers only if
    /// the first one does not hold as many.
    #[inline(always)]
    fn len_of(&self, known: usize) -> usize {
        let len = self.len();
        if known <= len { len } else { self.total_len() }
    }

    /// True for a frame without bytes.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `N` words at byte offset `at`; none if the frame ends before.
    fn load<const N: usize>(&self, at: usize) -> Option<[u16; N]>;

    /// Overwrites `N` words at byte offset `at`; none, and nothing written, if the frame ends before.
    fn store<const N: usize>(&mut self, at: usize, words: [u16; N]) -> Option<()>;

    /// `N` double words at byte offset `at`, as they lie there; none if the frame ends before.
    #[inline(always)]
    fn load_doubles<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let mut doubles = [0; N];
        for (index, double) in doubles.iter_mut().enumerate() {
            let [a, b] = self.load(at + 4 * index)?;
            let ([a, b], [c, d]) = (a.to_ne_bytes(), b.to_ne_bytes());
            *double = u32::from_ne_bytes([a, b, c, d]);
        }
        Some(doubles)
    }

    /// `N` quad words at byte offset `at`, as they lie there; none if the frame ends before.
    #[inline(always)]
    fn load_quads<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let mut quads = [0; N];
        for (index, quad) in quads.iter_mut().enumerate() {
            let [a, b] = self.load_doubles(at + 8 * index)?;
            let ([a, b, c, d], [e, f, g, h]) = (a.to_ne_bytes(), b.to_ne_bytes());
            *quad = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        }
        Some(quads)
    }

    /// Overwrites `N` double words at byte offset `at`; none, and nothing written, if the frame ends before.
    #[inline(always)]
    fn store_doubles<const N: usize>(&mut self, at: usize, doubles: [u32; N]) -> Option<()> {
        if at + 4 * N > self.len() {
            return None;
        }
        for (index, double) in doubles.into_iter().enumerate() {
            let [a, b, c, d] = double.to_ne_bytes();
            self.store(at + 4 * index, [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])])?;
        }
        Some(())
    }

    /// Overwrites `N` quad words at byte offset `at`; none, and nothing written, if the frame ends before.
    #[inline(always)]
    fn store_quads<const N: usize>(&mut self, at: usize, quads: [u64; N]) -> Option<()> {
        if at + 8 * N > self.len() {
            return None;
        }
        for (index, quad) in quads.into_iter().enumerate() {
            let [a, b, c, d, e, f, g, h] = quad.to_ne_bytes();
            let (first, last) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
            self.store_doubles(at + 8 * index, [first, last])?;
        }
        Some(())
    }
    /// Ones' complement sum of `LEN` bytes at byte offset `at`; `LEN` is a multiple of 4 and at most 1536. None if the
    /// frame ends before.
    fn sum<const LEN: usize>(&self, at: usize) -> Option<Sum>;

    /// Moves the first byte by `delta`: negative makes room in front, positive cuts off.
    /// None, and nothing moved, if there is no such room.
    fn move_head(&mut self, delta: i32) -> Option<()>;

    /// Cuts off what lies behind the first `len` bytes. None, and nothing cut, if there are not as many.
    fn cut(&mut self, len: usize) -> Option<()>;

    /// Index of the interface the frame came in by.
    fn ingress(&self) -> u32;
}

/// A frame in a borrowed buffer, for tests and fuzzing: `buffer[..start]` is its headroom.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
    ingress: u32,
}

impl<'a> Frame<'a> {
    /// The frame `buffer[headroom..]`; empty if the headroom exceeds the buffer.
    pub fn new(buffer: &'a mut [u8], headroom: usize, ingress: u32) -> Self {
        let end = buffer.len();
        Self { buffer, start: headroom.min(end), end, ingress }
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }
}

impl Packet for Frame<'_> {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn total_len(&self) -> usize {
        self.len()
    }

    fn load<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        let bytes = self.bytes().get(at..)?.get(..2 * N)?;
        let mut words = [0; N];
        for (word, pair) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u16::from_ne_bytes(*pair);
        }
        Some(words)
    }

    fn store<const N: usize>(&mut self, at: usize, words: [u16; N]) -> Option<()> {
        let bytes = self.buffer.get_mut(self.start..self.end)?.get_mut(at..)?.get_mut(..2 * N)?;
        for (word, pair) in words.into_iter().zip(bytes.as_chunks_mut().0) {
            *pair = word.to_ne_bytes();
        }
        Some(())
    }

    fn sum<const LEN: usize>(&self, at: usize) -> Option<Sum> {
        let bytes = self.bytes().get(at..)?.get(..LEN)?;
        let words = bytes.as_chunks().0.iter().copied().map(u16::from_ne_bytes);
        Some(words.fold(Sum::ZERO, |sum, word| sum.word(word)))
    }

    fn move_head(&mut self, delta: i32) -> Option<()> {
        let start = self.start.checked_add_signed(delta as isize)?;
        // The kernel, too, refuses to leave less than an Ethernet header (bpf_xdp_adjust_head, v6.18).
        if start + crate::numbers::ETHERNET_LEN > self.end {
            return None;
        }
        self.start = start;
        Some(())
    }

    fn cut(&mut self, len: usize) -> Option<()> {
        // The kernel, too, refuses to leave less than an Ethernet header (bpf_xdp_adjust_tail, v6.18).
        if len > self.len() || len < crate::numbers::ETHERNET_LEN {
            return None;
        }
        self.end = self.start + len;
        Some(())
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }
}
