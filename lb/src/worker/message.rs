//! One request and its answer, of several that share a connection: to whoever drives the exchange it looks like a connection
//! of HTTP/1.1 that carries just these.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Poll},
};

use super::stream::StreamError;
use crate::l7::http2::{Break, Gone, Inflow, Outflow};

/// See the module.
#[derive(Debug)]
pub(super) struct Message {
    inflow: RefCell<Inflow>,
    outflow: RefCell<Outflow>,
    /// The answer is to a HEAD.
    is_head: bool,
    /// We have given it up.
    is_over: Cell<bool>,
}

impl From<Gone> for StreamError {
    fn from(_: Gone) -> Self {
        Self::Broken
    }
}

impl Message {
    pub(super) fn new(inflow: Inflow, outflow: Outflow, is_head: bool) -> Self {
        let (inflow, outflow) = (RefCell::new(inflow), RefCell::new(outflow));
        Self { inflow, outflow, is_head, is_over: Cell::new(false) }
    }

    /// Puts what comes next behind `out`; nothing: no more comes.
    pub(super) fn poll_read(
        &self,
        task: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), StreamError>> {
        if self.is_over.get() {
            return Poll::Ready(Err(StreamError::Broken));
        }
        self.inflow.borrow_mut().poll_read(task, out).map(|read| Ok(read.map(drop)?))
    }

    /// Takes `bytes[*taken..]`.
    pub(super) fn poll_write(
        &self,
        task: &mut Context<'_>,
        bytes: &[u8],
        taken: &mut usize,
    ) -> Poll<Result<(), StreamError>> {
        self.outflow.borrow_mut().poll_write(task, bytes, taken, self.is_head).map_err(StreamError::from)
    }

    /// Ready when the peer has given it up.
    pub(super) fn poll_reset(&self, task: &mut Context<'_>) -> Poll<()> {
        self.outflow.borrow_mut().poll_reset(task)
    }

    /// Nothing more is said, nor listened to. An answer that is not whole must not look so.
    pub(super) fn end(&self) {
        if self.is_over.replace(true) {
            return;
        }
        let mut outflow = self.outflow.borrow_mut();
        if !outflow.has_ended() {
            outflow.reset(Break::Internal);
        } else if !self.inflow.borrow_mut().drain() {
            outflow.reset(Break::Unwanted);
        }
    }

    /// What was begun cannot be finished.
    pub(super) fn reset(&self) {
        if !self.is_over.replace(true) {
            self.outflow.borrow_mut().reset(Break::Internal);
        }
    }
}
