//! A connection to a backend, and the exchanges on it.

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll},
};

use lb_http2::{Budgets, Code, Connection, Refusal};

use super::{
    Wire,
    board::{Board, Flow},
    body::{Body, Gone},
    fields::{framing, room},
    flow::whole_head,
    link::{Core, Handle, Link, Over},
    request::{self, read_request},
    server::granted,
    tunnel,
};
use crate::l7::http1::{self, BodyReader, Side};

/// What a backend is granted.
#[derive(Clone, Copy, Debug)]
pub struct Grants {
    /// Of a head: names, values, and 32 bytes for each field (RFC 9113, 6.5.2).
    pub head_bytes: u32,
    /// Fields of a head.
    pub fields_max: usize,
    /// What is too much.
    pub budgets: Budgets,
}

/// The connection. Whoever waits for something on one of its exchanges waits for somebody to poll this.
pub struct Client<W: Wire> {
    wire: W,
    link: Link,
    has_ended: bool,
}

/// Begins exchanges on a connection, which ends with the last of these and of its exchanges.
#[derive(Clone)]
pub struct Requests(Link);

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// Says the first of a connection, and waits for what the backend says first: what it takes at once, and of what kind.
///
/// # Errors
/// The wire broke, or the backend does not speak HTTP/2.
pub async fn begin<W: Wire>(wire: W, grants: &Grants) -> Result<(Client<W>, Requests), Gone> {
    let engine = Connection::client(granted(grants.head_bytes, grants.fields_max, grants.budgets));
    let link = Link::new(engine, Board::new(false, grants.fields_max));
    let requests = Requests(link.clone());
    let mut client = Client { wire, link, has_ended: false };
    poll_fn(|task| match client.poll(task) {
        Poll::Ready(()) => Poll::Ready(Err(Gone)),
        Poll::Pending if requests.most() == 0 => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    Ok((client, requests))
}

impl<W: Wire> Client<W> {
    /// Ready when it has ended, or must.
    pub fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        if self.has_ended {
            return Poll::Ready(());
        }
        let is_wanted = self.link.is_shared();
        let mut core = self.link.core();
        if !is_wanted {
            core.engine.finish_shutdown();
        }
        let polled = core.poll(&mut self.wire, task);
        drop(core);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Over::Closed | Over::Broken | Over::Fault | Over::Done) => {
                self.has_ended = true;
                self.link.end();
                Poll::Ready(())
            }
        }
    }

    /// Ready once all is sent, or cannot be: of a connection that has ended the last that is said.
    pub fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.link.core().poll_flush(&mut self.wire, task).map(drop)
    }
}

impl<W: Wire> Drop for Client<W> {
    fn drop(&mut self) {
        self.link.end();
    }
}

impl Requests {
    /// Exchanges that the backend takes at once.
    pub fn most(&self) -> usize {
        let core = self.0.core();
        if core.engine.has_settings() { core.engine.streams_max() as usize } else { 0 }
    }

    /// Whether the backend takes more: it has not said that it ends, and has not ended.
    pub fn is_open(&self) -> bool {
        let core = self.0.core();
        !core.is_over && core.engine.can_ask() != Err(Refusal::Over)
    }

    /// An exchange whose request head comes as bytes. `is_secure`: the scheme is `https`.
    pub fn begin(&self, is_secure: bool) -> Asking {
        let key = self.0.core().board.flows.insert(Flow::default());
        Asking { handle: self.0.handle(key), is_secure, request: Out::Head(Vec::new()) }
    }

    /// Gives back memory that has no use while nothing goes on.
    pub fn trim(&self) {
        self.0.core().trim();
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // Without anybody who asks it ends.
        self.0.core().wake_driver();
    }
}

/// What is known of a request whose stream is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// The backend may have acted upon it.
    #[default]
    Unknown,
    /// The backend has not, and says so: it may be sent again, whatever it asks for (RFC 9113, 8.7).
    Refused,
    /// What came for an answer is none.
    Malformed,
}

/// One exchange.
pub struct Asking {
    handle: Handle,
    is_secure: bool,
    request: Out,
}

enum Out {
    /// Of the head as much as has come.
    Head(Vec<u8>),
    Body(Body),
    Over,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asking").field(&self.handle.key()).finish()
    }
}

impl Asking {
    /// What is known of it once its stream is gone.
    pub fn fate(&self) -> Fate {
        self.handle.flow(|flow| flow.fate).unwrap_or_default()
    }

    /// Takes bytes of an HTTP/1.1 request from `bytes[*taken..]`, and says how many by `taken`; ready once it has them all.
    ///
    /// # Errors
    /// The stream was reset, or the connection takes nothing more.
    pub fn poll_write(
        &mut self,
        task: &mut Context<'_>,
        bytes: &[u8],
        taken: &mut usize,
    ) -> Poll<Result<(), Gone>> {
        while let Some(rest) = bytes.get(*taken..).filter(|rest| !rest.is_empty()) {
            match &mut self.request {
                Out::Head(begun) => {
                    let mut begun = std::mem::take(begun);
                    match self.poll_may_ask(task) {
                        Poll::Ready(may) => may?,
                        Poll::Pending => {
                            self.request = Out::Head(begun);
                            return Poll::Pending;
                        }
                    }
                    let head = whole_head(&mut begun, rest, taken);
                    match head {
                        None => self.request = Out::Head(begun),
                        Some(head) => self.ask(head)?,
                    }
                }
                Out::Body(body) => match body.poll_write(&self.handle, task, rest) {
                    Poll::Ready(sent) => *taken += sent?,
                    Poll::Pending => return Poll::Pending,
                },
                // Nothing belongs there.
                Out::Over => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_may_ask(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut core = self.handle.link().core();
        match core.engine.can_ask() {
            _ if core.is_over => {}
            Ok(()) => return Poll::Ready(Ok(())),
            Err(Refusal::Full) => {
                core.waiting.push(task.waker().clone());
                return Poll::Pending;
            }
            Err(Refusal::Over) => {}
        }
        drop(core);
        Poll::Ready(Err(self.refused()))
    }

    /// Nothing of it has been sent, and nobody answers.
    fn refused(&mut self) -> Gone {
        self.request = Out::Over;
        self.handle.flow(|flow| {
            flow.fate = Fate::Refused;
            flow.break_off(Fate::Refused);
        });
        Gone
    }

    /// The head is whole.
    fn ask(&mut self, head: &[u8]) -> Result<(), Gone> {
        self.request = Out::Over;
        let mut room = room();
        let mut said = read_request(head, &mut room).map_err(|_| Gone)?;
        let scheme: &[u8] = if self.is_secure { b"https" } else { b"http" };
        let may_tunnel = self.handle.link().core().engine.allows_protocols();
        let tunnel = said.tunnel.take();
        let is_tunnel = tunnel.is_some() && may_tunnel;
        let body = if is_tunnel { Body::Tunnel } else { body_of(&said) };
        let has_ended = matches!(body, Body::Ended);
        let protocol = tunnel.as_ref().filter(|_| is_tunnel).map(tunnel::Ask::protocol);
        let (mut is_sound, without_key) = (true, tunnel.is_some());
        let mut core = self.handle.link().core();
        let Core { engine, board, .. } = &mut *core;
        let asked = engine.send_request(&said.request(scheme, protocol), has_ended, |writer| {
            is_sound = said.write(without_key, writer);
        });
        if let (Ok(stream), Some(flow)) = (asked, board.flows.get_mut(self.handle.key())) {
            flow.was_head = said.method == b"HEAD";
            flow.has_answered = has_ended;
            flow.ask = tunnel.filter(|_| is_tunnel).map(Box::new);
            board.bind(stream, self.handle.key());
            core.settle();
        }
        drop(core);
        if asked.is_err() {
            return Err(self.refused());
        }
        self.request = Out::Body(body);
        if is_sound { Ok(()) } else { Err(Gone) }
    }

    /// Says the end of what goes through a tunnel; whether there is one, that has not ended.
    pub fn end_tunnel(&mut self) -> bool {
        match &mut self.request {
            Out::Body(body) => body.end_tunnel(&self.handle),
            Out::Head(_) | Out::Over => false,
        }
    }

    /// Puts what comes next behind `out`, as HTTP/1.1 has it. False: there is nothing more.
    ///
    /// # Errors
    /// The stream was reset, the connection has ended, or the head is none.
    pub fn poll_read(&mut self, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<bool, Gone>> {
        self.handle.poll_read(task, out)
    }

    /// Gives the exchange up.
    pub fn reset(&mut self) {
        self.request = Out::Over;
        self.handle.reset(Code::CANCEL);
    }
}

/// What follows a head of ours (RFC 9112, 6.3).
fn body_of(said: &request::Said<'_>) -> Body {
    let body = match framing(said.fields) {
        (Some(0), _) | (None, false) => http1::Body::None,
        (Some(length), _) => http1::Body::Length(length),
        (None, true) => http1::Body::Chunked,
    };
    Body::new(BodyReader::new(body, Side::Request).keeping_trailers())
}
