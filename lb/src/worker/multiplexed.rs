//! Connections to backends that carry several exchanges at once.
//!
//! ```text
//!  connect --> one with room? --yes--> an exchange on it
//!                 |- somebody dials already: wait for that
//!                 `- no: dial --> its task, which moves all of its bytes --> an exchange on it
//! ```

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::{local::Local, message::Message, sink::Sink, stream::Stream, transport::Transport};
use crate::{
    l7::http2::{self, Grants, Requests},
    model::BackendId,
    ring::{Socket, executor},
};

/// Exchanges on one connection, where the backend takes as many.
const EXCHANGES_MAX: usize = 100;

/// One connection.
#[derive(Debug)]
struct Line {
    requests: Requests,
    socket: Socket,
    is_secure: bool,
    going: Cell<usize>,
    /// Its task holds this and nothing else of it: the last who begins exchanges is the last who keeps it open.
    is_over: Rc<Cell<bool>>,
    idle: Duration,
    /// Of the last exchange that ended.
    quiet_since: Cell<Instant>,
}

/// Those to one backend.
#[derive(Debug, Default)]
struct Lines {
    open: Vec<Rc<Line>>,
    dialling: usize,
    waiting: Vec<Waker>,
}

/// All of a worker.
#[derive(Debug, Default)]
pub(super) struct Multiplexed(RefCell<HashMap<BackendId, Lines>>);

/// One exchange's place on its connection.
pub(super) struct Seat {
    line: Rc<Line>,
    local: Rc<Local>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.line).finish()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.line.going.set(self.line.going.get() - 1);
        self.line.quiet_since.set(self.local.now());
    }
}

/// Somebody dials; whoever waits for that is told when it is over.
pub(super) struct Dialling<'l>(&'l Local, BackendId);

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let mut all = self.0.multiplexed.0.borrow_mut();
        let Some(lines) = all.get_mut(&self.1) else { return };
        lines.dialling -= 1;
        let waiting = std::mem::take(&mut lines.waiting);
        drop(all);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Multiplexed {
    /// A place on a connection that is there.
    fn take(&self, local: &Rc<Local>, backend: BackendId) -> Option<Stream> {
        let mut all = self.0.borrow_mut();
        let lines = all.get_mut(&backend)?;
        lines.open.retain(|line| !line.is_over.get() && line.requests.is_open());
        let has_room = |line: &&Rc<Line>| line.going.get() < line.requests.most().min(EXCHANGES_MAX);
        // The fullest one: the others may end.
        let line = lines.open.iter().filter(has_room).max_by_key(|line| line.going.get())?;
        line.going.set(line.going.get() + 1);
        let seat = Seat { line: line.clone(), local: local.clone() };
        let message = Message::to_backend(line.requests.begin(line.is_secure), seat);
        Some(Stream::new(Sink::message(line.socket.clone(), message)))
    }

    /// Waits for a place as long as somebody dials for one, and as many wait as he brings. `Err`: dial.
    pub(super) async fn find<'l>(
        &self,
        local: &'l Rc<Local>,
        backend: BackendId,
        fresh: bool,
    ) -> Result<Stream, Dialling<'l>> {
        let mut may_take = !fresh;
        poll_fn(|task| {
            if may_take && let Some(stream) = self.take(local, backend) {
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
            Poll::Ready(Err(Dialling(local, backend)))
        })
        .await
    }

    /// A connection is there: its first exchange.
    pub(super) async fn open(
        &self,
        local: &Rc<Local>,
        backend: BackendId,
        stream: Stream,
        grants: &Grants,
        idle: Duration,
    ) -> Option<Stream> {
        let (socket, is_secure) = (stream.socket().clone(), stream.sink().layer().is_some());
        let wire = Transport::new(local.clone(), stream);
        let (mut connection, requests) = http2::begin(wire, grants).await.ok()?;
        let is_over = Rc::new(Cell::new(false));
        let line = Rc::new(Line {
            requests,
            socket,
            is_secure,
            going: Cell::new(0),
            is_over: is_over.clone(),
            idle,
            quiet_since: Cell::new(local.now()),
        });
        self.0.borrow_mut().entry(backend).or_default().open.push(line);
        let task = local.task();
        executor::spawn(async move {
            poll_fn(|task| connection.poll(task)).await;
            is_over.set(true);
            drop(task);
        });
        self.take(local, backend)
    }

    /// Lets go of connections that nobody has used for too long, and of those to backends that are `gone`; what goes on on
    /// them goes on.
    pub(super) fn sweep(&self, now: Instant, gone: impl Fn(BackendId) -> bool) {
        self.0.borrow_mut().retain(|backend, lines| {
            let is_gone = gone(*backend);
            lines.open.retain(|line| {
                let is_quiet = line.going.get() == 0
                    && now.saturating_duration_since(line.quiet_since.get()) >= line.idle;
                !(is_gone || is_quiet || line.is_over.get())
            });
            !lines.open.is_empty() || lines.dialling > 0
        });
    }
}
