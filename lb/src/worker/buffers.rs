//! Buffers of bytes to send, kept for reuse.

use std::cell::RefCell;

use crate::ring::SendBuf;

/// How many that bytes are gathered in.
const SPARE: usize = 256;
/// One that grew beyond this is not kept.
const SPARE_BYTES_MAX: usize = 64 << 10;
/// How many of either size that bytes are sealed into. Of the large ones each connection that downloads has one under way:
/// beyond as many as these, each is made anew and its pages are cleared, which is an eighth of what a download costs.
const SEALED_SMALL: usize = 64;
const SEALED_LARGE: usize = 32;
/// Length of a small one: a record, and what is around it.
const SMALL_BYTES: usize = 17 << 10;
/// Longest that is kept: what one receive may have brought, sealed.
const LARGE_BYTES: usize = 136 << 10;

/// A worker's.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    spare: RefCell<Vec<Vec<u8>>>,
    /// These keep their length, so that nothing is cleared that is written over anyway.
    sealed_small: RefCell<Vec<Vec<u8>>>,
    sealed_large: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty one.
    pub(super) fn take(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn recycle(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            spare.push(buffer);
        }
    }

    /// One to seal so many bytes into; of any length, with anything in it.
    pub(super) fn to_seal(&self, plain: usize) -> Vec<u8> {
        let is_small = plain <= SMALL_BYTES - (1 << 10);
        let kept = if is_small { &self.sealed_small } else { &self.sealed_large };
        let spare = kept.borrow_mut().pop();
        spare.unwrap_or_else(|| if is_small { vec![0; SMALL_BYTES] } else { Vec::new() })
    }

    /// What was sent.
    pub(super) fn recycle_sent(&self, sent: SendBuf) {
        let buffer = match sent {
            SendBuf::Bytes(bytes) => return self.recycle(bytes),
            SendBuf::Front(buffer, _) => buffer,
            SendBuf::Received(..) => return,
        };
        let (kept, most) = match buffer.len() {
            ..SMALL_BYTES | LARGE_BYTES.. => return,
            SMALL_BYTES => (&self.sealed_small, SEALED_SMALL),
            _ => (&self.sealed_large, SEALED_LARGE),
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < most {
            kept.push(buffer);
        }
    }
}
