//! What is between a socket and the bytes that are read from it and written to it, where the peer speaks TLS.

use std::{
    cell::{Cell, RefCell},
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{buffers::Buffers, stream_error::StreamError};
use crate::{
    ring::SendBuf,
    sys::ktls,
    tls::{self, Entry, KernelSuites, Opener, Refusal, Server, Session, Terms},
};

/// Most that the kernel seals of one connection, as nobody there changes keys in time: 2^24 records (RFC 8446, 5.5).
const HANDED_BYTES_MAX: u64 = 1 << 38;
/// A notice that nothing more will be said, with its level (RFC 8446, 6.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Who seals what goes.
#[derive(Debug)]
enum Spoken {
    /// We do.
    Here(Session),
    /// The kernel does. What comes is opened here still.
    Handed(Box<Opener>),
    /// Nobody can any more.
    Lost,
}

/// The last that is said.
#[derive(Debug)]
pub(super) enum Parting {
    /// As it goes over the wire.
    Sealed(SendBuf),
    /// An alert's level and description, for the kernel to seal.
    Alert([u8; 2]),
}

/// What was told last, and by which entry.
#[derive(Debug)]
struct Known {
    entry: Arc<Entry>,
    fields: Rc<[(Arc<str>, String)]>,
}

/// One side of a connection; a stream and its sinks share it.
#[derive(Debug)]
pub(super) struct Secure {
    spoken: RefCell<Spoken>,
    /// Bytes that the kernel has sealed.
    handed_bytes: Cell<u64>,
    /// The kernel would not.
    was_refused: Cell<bool>,
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
            spoken: RefCell::new(Spoken::Here(session)),
            handed_bytes: Cell::default(),
            was_refused: Cell::default(),
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
        match &*self.spoken.borrow() {
            Spoken::Here(session) => session.has_ended(),
            Spoken::Handed(opener) => opener.has_ended(),
            Spoken::Lost => false,
        }
    }

    /// Whether what has come may be repeated by another.
    pub(super) fn is_early(&self) -> bool {
        self.is_early.get()
    }

    fn note_early(&self, is_broken: bool) {
        // The kernel is handed nothing before that.
        let is_early = matches!(&*self.spoken.borrow(), Spoken::Here(session) if session.is_early());
        self.is_early.set(is_broken || is_early);
        if is_broken || self.has_ended() || !is_early {
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
        match &mut *self.spoken.borrow_mut() {
            Spoken::Here(session) => session.take_unsent(),
            Spoken::Handed(_) | Spoken::Lost => Vec::new(),
        }
    }

    /// Records have come. What they say goes behind `plain`.
    pub(super) fn open(&self, records: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Refusal> {
        let opened = match &mut *self.spoken.borrow_mut() {
            Spoken::Here(session) => session.open(records, plain),
            Spoken::Handed(opener) => opener.open(records, plain),
            Spoken::Lost => Err(Refusal::over()),
        };
        if self.is_early.get() {
            self.note_early(opened.is_err());
        }
        opened.inspect_err(|refusal| refusal.alert.clone_into(&mut self.parting.borrow_mut()))
    }

    /// `plain` as it goes over the wire.
    pub(super) fn seal(&self, buffers: &Buffers, plain: &[u8]) -> Result<SendBuf, Refusal> {
        let mut out = buffers.to_seal(plain.len());
        let Spoken::Here(session) = &mut *self.spoken.borrow_mut() else { return Err(Refusal::over()) };
        let len = session.seal(plain, &mut out)?;
        Ok(SendBuf::Front(out, len))
    }

    /// That nothing more will be said, and why.
    pub(super) fn seal_end(&self) -> Option<Parting> {
        let parting = self.parting.take();
        match &mut *self.spoken.borrow_mut() {
            Spoken::Here(_) if !parting.is_empty() => Some(Parting::Sealed(SendBuf::Bytes(parting))),
            Spoken::Here(session) => {
                let mut out = Vec::new();
                let len = session.seal_end(&mut out).ok()?;
                Some(Parting::Sealed(SendBuf::Front(out, len)))
            }
            Spoken::Handed(_) => Some(Parting::Alert(parting.try_into().unwrap_or(CLOSE_NOTIFY))),
            Spoken::Lost => None,
        }
    }

    /// Whether the kernel seals what goes.
    pub(super) fn is_handed_over(&self) -> bool {
        matches!(&*self.spoken.borrow(), Spoken::Handed(_))
    }

    /// Has the kernel seal what goes from here on, if it can; whether it does. Nothing may be on its way.
    pub(super) fn hand_over(&self, socket: impl AsFd, suites: KernelSuites) -> bool {
        let mut spoken = self.spoken.borrow_mut();
        let may = match &mut *spoken {
            Spoken::Handed(_) => return true,
            Spoken::Here(session) => !self.was_refused.get() && session.may_be_handed_over(suites),
            Spoken::Lost => false,
        };
        if !may {
            return false;
        }
        // Up to here all can go on as it was.
        if ktls::begin(&socket).is_err() {
            self.was_refused.set(true);
            return false;
        }
        let Spoken::Here(session) = std::mem::replace(&mut *spoken, Spoken::Lost) else { return false };
        let Ok((keys, opener)) = session.hand_over() else { return false };
        if ktls::seal_with(&socket, keys.bytes()).is_err() {
            return false;
        }
        *spoken = Spoken::Handed(Box::new(opener));
        true
    }

    /// The kernel is given `len` bytes to seal. False: it may not be given as many.
    pub(super) fn may_seal(&self, len: usize) -> bool {
        self.handed_bytes.set(self.handed_bytes.get().saturating_add(len as u64));
        self.handed_bytes.get() <= HANDED_BYTES_MAX
    }
}
