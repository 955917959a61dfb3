//! One request and its answer, of several that share a connection: to whoever drives the exchange it looks like a connection
//! of HTTP/1.1 that carries just these.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Poll},
};

use super::carrier::Seat;
use crate::l7::http2::{Asking, Break, Fate, Gone, Inflow, Outflow};

/// See the module.
#[derive(Debug)]
pub(super) struct Message {
    end: RefCell<End>,
    /// We have given it up.
    is_over: Cell<bool>,
}

/// Who is at the other end.
#[derive(Debug)]
enum End {
    Client {
        inflow: Inflow,
        outflow: Outflow,
        /// The answer is to a HEAD.
        is_head: bool,
    },
    /// With its place on the connection, which is given back with it.
    Backend(Asking, #[expect(dead_code, reason = "held until the exchange is over")] Seat),
}

impl Message {
    pub(super) fn of_client(inflow: Inflow, outflow: Outflow, is_head: bool) -> Self {
        Self { end: RefCell::new(End::Client { inflow, outflow, is_head }), is_over: Cell::new(false) }
    }

    pub(super) fn to_backend(asking: Asking, seat: Seat) -> Self {
        Self { end: RefCell::new(End::Backend(asking, seat)), is_over: Cell::new(false) }
    }

    /// Puts what comes next behind `out`; nothing: no more comes.
    pub(super) fn poll_read(&self, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<(), Gone>> {
        if self.is_over.get() {
            return Poll::Ready(Err(Gone));
        }
        let read = match &mut *self.end.borrow_mut() {
            End::Client { inflow, .. } => inflow.poll_read(task, out),
            End::Backend(asking, _) => asking.poll_read(task, out),
        };
        read.map_ok(drop)
    }

    /// Takes `bytes[*taken..]`.
    pub(super) fn poll_write(
        &self,
        task: &mut Context<'_>,
        bytes: &[u8],
        taken: &mut usize,
    ) -> Poll<Result<(), Gone>> {
        match &mut *self.end.borrow_mut() {
            End::Client { outflow, is_head, .. } => outflow.poll_write(task, bytes, taken, *is_head),
            End::Backend(asking, _) => asking.poll_write(task, bytes, taken),
        }
    }

    /// What is known of a request whose stream is gone.
    pub(super) fn fate(&self) -> Fate {
        match &*self.end.borrow() {
            End::Client { .. } => Fate::Unknown,
            End::Backend(asking, _) => asking.fate(),
        }
    }

    /// Ready when the client has given it up.
    pub(super) fn poll_reset(&self, task: &mut Context<'_>) -> Poll<()> {
        match &mut *self.end.borrow_mut() {
            End::Client { outflow, .. } => outflow.poll_reset(task),
            End::Backend(..) => Poll::Pending,
        }
    }

    /// Whether a tunnel is asked for.
    pub(super) fn is_tunnel(&self) -> bool {
        matches!(&*self.end.borrow(), End::Client { outflow, .. } if outflow.is_tunnel())
    }

    /// Nothing more is said, nor, but in a tunnel that has not ended yet, listened to. An answer that is not whole must not
    /// look so.
    pub(super) fn end(&self) {
        let ends_half = match &mut *self.end.borrow_mut() {
            End::Client { outflow, .. } => outflow.end_tunnel(),
            End::Backend(asking, _) => asking.end_tunnel(),
        };
        if ends_half {
            return;
        }
        if self.is_over.replace(true) {
            return;
        }
        match &mut *self.end.borrow_mut() {
            End::Client { outflow, .. } if !outflow.has_ended() => outflow.reset(Break::Internal),
            // What is left of the request is given up once nobody has the stream any more, behind the answer (RFC 9113, 8.1):
            // a reset from here would overtake it.
            End::Client { inflow, .. } => inflow.drain(),
            End::Backend(asking, _) => asking.reset(),
        }
    }

    /// What was begun cannot be finished.
    pub(super) fn reset(&self) {
        if self.is_over.replace(true) {
            return;
        }
        match &mut *self.end.borrow_mut() {
            End::Client { outflow, .. } => outflow.reset(Break::Internal),
            End::Backend(asking, _) => asking.reset(),
        }
    }
}
