//! What is between a socket and the bytes that are read from it and written to it, where the peer speaks TLS.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{buffers::Buffers, stream_error::StreamError};
use crate::{
    ring::SendBuf,
    tls::{self, Entry, Refusal, Server, Session, Terms},
};

/// What was told last, and by which entry.
#[derive(Debug)]
struct Known {
    entry: Arc<Entry>,
    fields: Rc<[(Arc<str>, String)]>,
}

/// One side of a connection; a stream and its sinks share it.
#[derive(Debug)]
pub(super) struct Secure {
    session: RefCell<Session>,
    pub(super) terms: Terms,
    /// What the peer is told of a record that could not be opened.
    parting: RefCell<Vec<u8>>,
    identity: RefCell<Option<Known>>,
    /// What has come may be repeated by another: hands are not shaken yet.
    is_early: Cell<bool>,
    /// Who waits for that.
    waiting: RefCell<Vec<Waker>>,
}

impl Secure {
    /// Once hands are shaken, or something came before that.
    pub(super) fn new(session: Session) -> Self {
        Self {
            terms: session.terms(),
            is_early: Cell::new(session.is_early()),
            waiting: RefCell::default(),
            session: RefCell::new(session),
            parting: RefCell::default(),
            identity: RefCell::default(),
        }
    }

    /// Fields that tell who the client is, as the entry wants it that it has met; the same as long as that is.
    pub(super) fn identity(&self, server: &Server) -> Rc<[(Arc<str>, String)]> {
        let Some(entry) = server.entry(self.terms.name.as_deref()) else { return Rc::default() };
        let mut known = self.identity.borrow_mut();
        if let Some(Known { fields, .. }) = known.as_ref().filter(|known| Arc::ptr_eq(&known.entry, entry)) {
            return fields.clone();
        }
        let tell = |(name, what): &(Arc<str>, _)| (name.clone(), tls::tell(&self.terms.chain, *what));
        let fields: Rc<[_]> = entry.client_fields().iter().map(tell).collect();
        *known = Some(Known { entry: entry.clone(), fields: fields.clone() });
        fields
    }

    /// Whether HTTP/2 was agreed on.
    pub(super) fn speaks_http2(&self) -> bool {
        self.terms.protocol.as_deref() == Some(b"h2")
    }

    /// Whether the peer has said that it will say no more.
    pub(super) fn has_ended(&self) -> bool {
        self.session.borrow().has_ended()
    }

    /// Whether what has come may be repeated by another.
    pub(super) fn is_early(&self) -> bool {
        self.is_early.get()
    }

    fn note_early(&self, is_broken: bool) {
        let session = self.session.borrow();
        self.is_early.set(is_broken || session.is_early());
        if is_broken || session.has_ended() || !self.is_early.get() {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Ready once hands are shaken; for who does not read the connection itself.
    pub(super) fn poll_settled(&self, task: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        match self.is_early() {
            false => Poll::Ready(Ok(())),
            true if self.has_ended() => Poll::Ready(Err(StreamError::Broken)),
            true => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(task.waker())) {
                    waiting.push(task.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Records that wait for nothing.
    pub(super) fn take_unsent(&self) -> Vec<u8> {
        self.session.borrow_mut().take_unsent()
    }

    /// Records have come. What they say goes behind `plain`.
    pub(super) fn open(&self, records: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Refusal> {
        let opened = self.session.borrow_mut().open(records, plain);
        if self.is_early.get() {
            self.note_early(opened.is_err());
        }
        opened.inspect_err(|refusal| refusal.alert.clone_into(&mut self.parting.borrow_mut()))
    }

    /// `plain` as it goes over the wire.
    pub(super) fn seal(&self, buffers: &Buffers, plain: &[u8]) -> Result<SendBuf, Refusal> {
        let mut out = buffers.to_seal(plain.len());
        let len = self.session.borrow_mut().seal(plain, &mut out)?;
        Ok(SendBuf::Front(out, len))
    }

    /// That nothing more will be said, and why, as it goes over the wire.
    pub(super) fn seal_end(&self) -> Option<SendBuf> {
        let parting = self.parting.take();
        if !parting.is_empty() {
            return Some(SendBuf::Bytes(parting));
        }
        let mut out = Vec::new();
        let len = self.session.borrow_mut().seal_end(&mut out).ok()?;
        Some(SendBuf::Front(out, len))
    }
}
