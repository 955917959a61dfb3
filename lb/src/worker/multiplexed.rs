//! Connections to backends that carry several exchanges at once, as whoever wants a place on one finds them.
//!
//! ```text
//!  find --> one with room? --yes--> an exchange on it
//!             |- somebody dials already: wait for that
//!             `- no: dial --> add --> an exchange on it
//! ```

use std::{
    cell::RefCell,
    collections::HashMap,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    carrier::{Carrier, EXCHANGES_MAX},
    message::Message,
    sink::Sink,
    stream::Stream,
};
use crate::model::BackendId;

/// Those to one backend.
#[derive(Debug, Default)]
struct Lines {
    /// With the time that each may be quiet.
    open: Vec<(Rc<Carrier>, Duration)>,
    dialling: usize,
    waiting: Vec<Waker>,
}

/// All of a worker.
#[derive(Debug, Default)]
pub(super) struct Multiplexed(RefCell<HashMap<BackendId, Lines>>);

/// Somebody dials; whoever waits for that is told when it is over.
pub(super) struct Dialling<'m>(&'m Multiplexed, BackendId);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let mut all = self.0.0.borrow_mut();
        let Some(lines) = all.get_mut(&self.1) else { return };
        lines.dialling -= 1;
        let waiting = std::mem::take(&mut lines.waiting);
        drop(all);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Multiplexed {
    /// A place on a connection that is there.
    fn take(&self, backend: BackendId) -> Option<Stream> {
        let mut all = self.0.borrow_mut();
        let lines = all.get_mut(&backend)?;
        lines.open.retain(|(carrier, _)| !carrier.is_over());
        // The fullest one: the others may end.
        let with_room = lines.open.iter().map(|(carrier, _)| carrier).filter(|carrier| carrier.has_room());
        let carrier = with_room.max_by_key(|carrier| carrier.going())?;
        let (asking, seat) = carrier.begin();
        Some(Stream::new(Sink::message(carrier.socket().clone(), Message::to_backend(asking, seat))))
    }

    /// Waits for a place as long as somebody dials for one, and as many wait as he brings. `Err`: dial.
    pub(super) async fn find(&self, backend: BackendId, fresh: bool) -> Result<Stream, Dialling<'_>> {
        let mut may_take = !fresh;
        poll_fn(|task| {
            if may_take && let Some(stream) = self.take(backend) {
                return Poll::Ready(Ok(stream));
            }
            let mut all = self.0.borrow_mut();
            let lines = all.entry(backend).or_default();
            if may_take && lines.waiting.len() < lines.dialling * EXCHANGES_MAX {
                lines.waiting.push(task.waker().clone());
                return Poll::Pending;
            }
            may_take = true;
            lines.dialling += 1;
            Poll::Ready(Err(Dialling(self, backend)))
        })
        .await
    }

    /// A connection is there, which may be quiet for `idle`: its first exchange.
    pub(super) fn add(&self, backend: BackendId, carrier: Carrier, idle: Duration) -> Option<Stream> {
        self.0.borrow_mut().entry(backend).or_default().open.push((Rc::new(carrier), idle));
        self.take(backend)
    }

    /// Lets go of connections that nobody has used for too long, and of those to backends that are `gone`; what goes on on
    /// them goes on.
    pub(super) fn sweep(&self, now: Instant, gone: impl Fn(BackendId) -> bool) {
        self.0.borrow_mut().retain(|backend, lines| {
            let is_gone = gone(*backend);
            lines.open.retain(|(carrier, idle)| {
                let quiet = carrier.quiet_since(now);
                if quiet.is_some_and(|since| since < now) {
                    carrier.trim();
                }
                let is_quiet = quiet.is_some_and(|since| now.saturating_duration_since(since) >= *idle);
                !(is_gone || is_quiet || carrier.is_over())
            });
            !lines.open.is_empty() || lines.dialling > 0
        });
    }
}
