//! What the packet path may do to a packet.

use crate::{env::Env, quic};

/// A frame, from its Ethernet header on.
///
/// Bytes are read and written as 16-bit words as they lie there, that is in network order: frames begin on an
/// even address and headers have even lengths, and BPF code made of words is small, where byte arrays are
/// taken apart and put together again byte by byte. All offsets are from the present first byte;
/// [`Packet::move_head`] shifts them.
pub trait Packet {
    /// Bytes from the Ethernet header to the end.
    fn len(&self) -> usize;

    /// True for a frame without bytes.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `N` words at byte offset `at`; none if the frame ends before.
    fn load<const N: usize>(&self, at: usize) -> Option<[u16; N]>;

    /// Overwrites `N` words at byte offset `at`; none, and nothing written, if the frame ends before.
    fn store<const N: usize>(&mut self, at: usize, words: [u16; N]) -> Option<()>;

    /// Moves the first byte by `delta`: negative makes room in front, positive cuts off.
    /// None, and nothing moved, if there is no such room.
    fn move_head(&mut self, delta: i32) -> Option<()>;

    /// Index of the interface the frame came in by.
    fn ingress(&self) -> u32;

    /// What [`quic::server`] says of this datagram.
    #[inline(always)]
    fn quic_server<E: Env>(&self, env: &E, at: usize, vip: u32) -> u16
    where
        Self: Sized,
    {
        quic::server(self, env, at, vip)
    }
}

/// A frame in a borrowed buffer, for tests and fuzzing: `buffer[..start]` is its headroom.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    start: usize,
    ingress: u32,
}

impl<'a> Frame<'a> {
    /// The frame `buffer[headroom..]`; empty if the headroom exceeds the buffer.
    pub fn new(buffer: &'a mut [u8], headroom: usize, ingress: u32) -> Self {
        let start = headroom.min(buffer.len());
        Self { buffer, start, ingress }
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }
}

impl Packet for Frame<'_> {
    fn len(&self) -> usize {
        self.buffer.len() - self.start
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
        let bytes = self.buffer.get_mut(self.start + at..)?.get_mut(..2 * N)?;
        for (word, pair) in words.into_iter().zip(bytes.as_chunks_mut().0) {
            *pair = word.to_ne_bytes();
        }
        Some(())
    }

    fn move_head(&mut self, delta: i32) -> Option<()> {
        let start = self.start.checked_add_signed(delta as isize)?;
        // The kernel, too, refuses to leave less than an Ethernet header (bpf_xdp_adjust_head, v6.18).
        if start + crate::numbers::ETHERNET_LEN > self.buffer.len() {
            return None;
        }
        self.start = start;
        Some(())
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }
}
