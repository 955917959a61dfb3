//! A connection's engine and its board, which its driver and its streams share, and the bytes between them and the wire.

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use lb_http2::{Code, Connection, Stream};

use super::{
    Wire,
    board::{Board, Coming, Flow, Owed},
    lost::Gone,
};

/// What may wait to be sent; beyond it no DATA is taken. Together with what is around it a buffer of 64 KiB.
pub(super) const OUT_BYTES_MAX: usize = 60 << 10;
/// How often it is read before others have their turn.
const READS_MAX: usize = 4;

/// What they share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) engine: Connection,
    pub(super) board: Board,
    /// Whoever moves its bytes.
    driver: Option<Waker>,
    /// Whoever waits until something more may be asked.
    pub(super) waiting: Vec<Waker>,
    is_sending: bool,
    /// Its wire has ended, or nobody moves its bytes.
    pub(super) is_over: bool,
}

/// See the module. Never held while anything is awaited, nor while anybody else is called but to be woken.
#[derive(Clone, Debug)]
pub(super) struct Link(Rc<RefCell<Core>>);

/// How a connection's bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The peer has ended.
    Closed,
    /// The wire broke.
    Broken,
    /// The engine cannot go on, and says why.
    Fault,
    /// All was done that was begun, and all was sent.
    Done,
}

impl Link {
    pub(super) fn new(engine: Connection, board: Board) -> Self {
        Self(Rc::new(RefCell::new(Core {
            engine,
            board,
            driver: None,
            waiting: Vec::new(),
            is_sending: false,
            is_over: false,
        })))
    }

    pub(super) fn core(&self) -> RefMut<'_, Core> {
        self.0.borrow_mut()
    }

    /// Whether anybody else has it.
    pub(super) fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// A handle of a flow.
    pub(super) fn handle(&self, key: usize) -> Handle {
        if let Some(flow) = self.core().board.flows.get_mut(key) {
            flow.handles += 1;
        }
        Handle { link: self.clone(), key }
    }

    /// Nobody moves bytes any more.
    pub(super) fn end(&self) {
        let mut core = self.core();
        core.is_over = true;
        core.board.break_off();
        core.settle();
    }
}

impl Core {
    /// To be called when something was sent, released or given up.
    pub(super) fn settle(&mut self) {
        let is_full = self.engine.can_ask() == Err(lb_http2::Refusal::Full);
        if !self.waiting.is_empty() && (self.is_over || !is_full) {
            self.waiting.drain(..).for_each(Waker::wake);
        }
        if !self.is_sending && !self.engine.pending().is_empty() {
            self.wake_driver();
        }
    }

    pub(super) fn wake_driver(&mut self) {
        self.driver.take().into_iter().for_each(Waker::wake);
    }

    /// Gives back memory that has no use while nothing goes on.
    pub(super) fn trim(&mut self) {
        if self.engine.is_idle() {
            self.engine.trim();
        }
        self.board.trim();
        self.waiting.shrink_to_fit();
    }

    /// Says what is owed to what has come.
    fn pay(&mut self) {
        while let Some(owed) = self.board.owed.pop() {
            match owed {
                Owed::Reset(stream, code) => self.engine.send_reset(stream, code),
                Owed::TooLarge(stream, ends) => {
                    let answered = self.engine.send_response(stream, 431, true, |_| {});
                    if answered.is_err() || !ends {
                        self.engine.send_reset(stream, Code::NO_ERROR);
                    }
                }
            }
        }
    }

    /// Hands what is pending to the wire, if that has room. Ready when nothing is left to be sent.
    pub(super) fn poll_flush<W: Wire>(
        &mut self,
        wire: &mut W,
        task: &mut Context<'_>,
    ) -> Poll<Result<(), Over>> {
        loop {
            match wire.poll_sent(task) {
                Poll::Pending => {
                    self.is_sending = true;
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Over::Broken)),
                Poll::Ready(Ok(())) => self.is_sending = false,
            }
            // Those that were told before may have had no use for it.
            self.engine.resume(&mut self.board);
            if self.engine.pending().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = wire.buffer();
            self.engine.take_pending(&mut buffer);
            if wire.send(buffer).is_err() {
                return Poll::Ready(Err(Over::Broken));
            }
            self.engine.resume(&mut self.board);
        }
    }

    /// Reads, if there is anything and room for what comes of it. Pending where there is none.
    fn poll_read<W: Wire>(&mut self, wire: &mut W, task: &mut Context<'_>) -> Poll<Result<(), Over>> {
        // What comes could make us say more.
        if self.engine.is_congested() {
            return Poll::Pending;
        }
        let now = wire.now();
        let len = match wire.poll_fill(task) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Over::Broken)),
            Poll::Ready(Ok([])) => return Poll::Ready(Err(Over::Closed)),
            Poll::Ready(Ok(bytes)) => {
                // What is wrong stays to be seen.
                let _ = self.engine.receive(bytes, now, &mut self.board);
                bytes.len()
            }
        };
        wire.consume(len);
        self.pay();
        self.settle();
        Poll::Ready(Ok(()))
    }

    /// Moves bytes both ways. Pending, too, once there are news.
    pub(super) fn poll<W: Wire>(&mut self, wire: &mut W, task: &mut Context<'_>) -> Poll<Over> {
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(task.waker())) {
            self.driver = Some(task.waker().clone());
        }
        let mut reads = 0;
        while self.engine.fault().is_none() && self.board.news.is_empty() {
            match self.poll_read(wire, task) {
                Poll::Ready(Ok(())) if reads < READS_MAX => reads += 1,
                Poll::Ready(Ok(())) => {
                    task.waker().wake_by_ref();
                    break;
                }
                Poll::Ready(Err(over)) => return Poll::Ready(over),
                // Once something is sent there is room again.
                Poll::Pending if self.engine.is_congested() && !self.is_sending => {
                    match self.poll_flush(wire, task) {
                        Poll::Ready(Err(over)) => return Poll::Ready(over),
                        _ if self.engine.is_congested() => break,
                        _ => {}
                    }
                }
                Poll::Pending => break,
            }
        }
        let flushed = self.poll_flush(wire, task);
        match flushed {
            Poll::Ready(Err(over)) => Poll::Ready(over),
            _ if self.engine.fault().is_some() => Poll::Ready(Over::Fault),
            Poll::Ready(Ok(())) if self.is_done() => Poll::Ready(Over::Done),
            _ => Poll::Pending,
        }
    }

    /// Whether one of both has said that it ends, and all that was begun is over.
    fn is_done(&self) -> bool {
        self.board.news.is_empty()
            && (self.engine.is_over() || (self.engine.looked_at().is_some() && self.engine.streams() == 0))
    }
}

/// One stream of a connection.
#[derive(Debug)]
pub(super) struct Handle {
    link: Link,
    key: usize,
}

impl Handle {
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) const fn key(&self) -> usize {
        self.key
    }

    /// With the connection and the stream, where that goes on; then what comes of it is sent.
    pub(super) fn with<T>(
        &self,
        run: impl FnOnce(&mut Connection, Stream, &mut Flow) -> Result<T, Gone>,
    ) -> Result<T, Gone> {
        let mut core = self.link.core();
        let Core { engine, board, .. } = &mut *core;
        let flow = board.flows.get_mut(self.key).ok_or(Gone)?;
        let stream = flow.stream.filter(|_| !flow.is_gone).ok_or(Gone)?;
        let done = run(engine, stream, flow);
        core.settle();
        done
    }

    pub(super) fn flow<T>(&self, look: impl FnOnce(&mut Flow) -> T) -> Option<T> {
        self.link.core().board.flows.get_mut(self.key).map(look)
    }

    /// Puts what has come behind `out`, and lets the peer send as much again. False: there is nothing more.
    ///
    /// # Errors
    /// What was to come does not.
    pub(super) fn poll_read(&self, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<bool, Gone>> {
        let mut core = self.link.core();
        let Core { engine, board, .. } = &mut *core;
        let Some(flow) = board.flows.get_mut(self.key) else { return Poll::Ready(Err(Gone)) };
        if flow.text.is_empty() {
            return match flow.coming {
                Coming::Ended => Poll::Ready(Ok(false)),
                Coming::Broken => Poll::Ready(Err(Gone)),
                Coming::Open => {
                    flow.reader = Some(task.waker().clone());
                    Poll::Pending
                }
            };
        }
        if out.is_empty() {
            std::mem::swap(out, &mut flow.text);
        } else {
            out.append(&mut flow.text);
        }
        let held = std::mem::take(&mut flow.held);
        if let Some(stream) = flow.stream.filter(|_| held > 0) {
            engine.release(stream, held);
            core.settle();
        }
        Poll::Ready(Ok(true))
    }

    /// Throws away what has come.
    pub(super) fn drain(&self) {
        let mut core = self.link.core();
        let Core { engine, board, .. } = &mut *core;
        let Some(flow) = board.flows.get_mut(self.key) else { return };
        flow.text.clear();
        let held = std::mem::take(&mut flow.held);
        if let Some(stream) = flow.stream {
            engine.release(stream, held);
            core.settle();
        }
    }

    /// Gives the stream up.
    pub(super) fn reset(&self, code: Code) {
        let mut core = self.link.core();
        let Core { engine, board, .. } = &mut *core;
        let Some(flow) = board.flows.get_mut(self.key) else { return };
        if let Some(stream) = flow.stream.filter(|_| !flow.is_gone) {
            engine.send_reset(stream, code);
        }
        let fate = flow.fate;
        flow.break_off(fate);
        core.settle();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut core = self.link.core();
        let Core { engine, board, .. } = &mut *core;
        let Some(flow) = board.flows.get_mut(self.key) else { return };
        flow.handles = flow.handles.saturating_sub(1);
        if flow.handles > 0 {
            return;
        }
        let flow = board.flows.remove(self.key);
        if let Some(stream) = flow.stream.filter(|_| !flow.is_gone) {
            // Nobody has it any more: behind a whole answer for no reason (RFC 9113, 8.1).
            let code = if flow.has_answered { Code::NO_ERROR } else { Code::CANCEL };
            engine.send_reset(stream, code);
        }
        core.settle();
        // The last that somebody wanted of a connection to a backend is its end: this one's link, and the driver's.
        if Rc::strong_count(&self.link.0) <= 2 {
            core.wake_driver();
        }
    }
}
