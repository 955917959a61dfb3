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
    body::Body,
    fields::{framing, room},
    flow::whole_head,
    link::{Core, Handle, Link, Over},
    lost::{Fate, Gone},
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

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::Future as _, io, rc::Rc, task::Waker, time::Instant};

    use super::*;
    use crate::{config::Limits, l7::http2::budgets};

    /// What a backend says, as far as a test has let it; at last perhaps the end.
    #[derive(Clone, Default)]
    struct Script {
        said: Rc<RefCell<(Vec<u8>, bool)>>,
        heard: Vec<u8>,
    }

    impl Wire for Script {
        fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
            let (said, has_ended) = &mut *self.said.borrow_mut();
            if said.is_empty() && self.heard.is_empty() && !*has_ended {
                return Poll::Pending;
            }
            self.heard.append(said);
            Poll::Ready(Ok(&self.heard))
        }

        fn consume(&mut self, len: usize) {
            self.heard.drain(..len);
        }

        fn poll_sent(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn buffer(&mut self) -> Vec<u8> {
            Vec::new()
        }

        fn send(&mut self, _: Vec<u8>) -> io::Result<()> {
            Ok(())
        }

        fn now(&self) -> Instant {
            Instant::now()
        }
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// What is known of a request that is answered so, if its stream is gone then.
    fn fate(said: &[u8], ends: bool) -> Option<Fate> {
        let mut task = Context::from_waker(Waker::noop());
        let script = Script::default();
        script.said.borrow_mut().0 = frame(4, 0, 0, &[]);
        let limits = Limits::default();
        let grants = Grants { head_bytes: 1 << 14, fields_max: 100, budgets: budgets(&limits) };
        let begun = std::pin::pin!(begin(script.clone(), &grants)).poll(&mut task);
        let Poll::Ready(Ok((mut client, requests))) = begun else { panic!("no connection") };
        let mut asking = requests.begin(false);
        let mut taken = 0;
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(matches!(asking.poll_write(&mut task, head, &mut taken), Poll::Ready(Ok(()))));
        assert!(client.poll(&mut task).is_pending());
        *script.said.borrow_mut() = (said.to_vec(), ends);
        _ = client.poll(&mut task);
        match asking.poll_read(&mut task, &mut Vec::new()) {
            Poll::Ready(Err(Gone)) => Some(asking.fate()),
            _ => None,
        }
    }

    #[test]
    fn what_is_known_of_a_request_goes_by_what_was_said() {
        let reset = |reason| frame(3, 0, 1, &[0, 0, 0, reason]);
        let goaway = |last, reason| frame(7, 0, 0, &[0, 0, 0, last, 0, 0, 0, reason]);
        let answer = |fields: &[u8]| frame(1, 5, 1, fields);
        let connection = b"\x88\x00\x0aconnection\x01x";
        for (what, said, ends, expected) in [
            ("REFUSED_STREAM", reset(7), false, Some(Fate::Refused)),
            ("CANCEL", reset(8), false, Some(Fate::Unknown)),
            ("INTERNAL_ERROR", reset(2), false, Some(Fate::Unknown)),
            ("NO_ERROR, and no answer", reset(0), false, Some(Fate::Unknown)),
            ("GOAWAY before it", goaway(0, 0), false, Some(Fate::Refused)),
            ("GOAWAY before it, in anger", goaway(0, 11), false, Some(Fate::Refused)),
            ("GOAWAY behind it", goaway(1, 0), false, None),
            ("GOAWAY behind it, and the end", goaway(1, 0), true, Some(Fate::Unknown)),
            ("the end", Vec::new(), true, Some(Fate::Unknown)),
            ("nothing", Vec::new(), false, None),
            ("a field of the connection's", answer(connection), false, Some(Fate::Malformed)),
            ("a name that is none", answer(&[0x88, 0, 1, b'A', 1, b'b']), false, Some(Fate::Malformed)),
            ("an answer", answer(&[0x88]), false, None),
        ] {
            assert_eq!(fate(&said, ends), expected, "{what}");
        }
    }

    #[test]
    fn what_was_never_sent_is_refused() {
        let mut task = Context::from_waker(Waker::noop());
        let script = Script::default();
        script.said.borrow_mut().0 = frame(4, 0, 0, &[]);
        let grants = Grants { head_bytes: 1 << 14, fields_max: 100, budgets: budgets(&Limits::default()) };
        let begun = std::pin::pin!(begin(script.clone(), &grants)).poll(&mut task);
        let Poll::Ready(Ok((mut client, requests))) = begun else { panic!("no connection") };
        let mut asking = requests.begin(false);
        script.said.borrow_mut().0 = frame(7, 0, 0, &[0; 8]);
        _ = client.poll(&mut task);
        assert!(!requests.is_open());
        let asked = asking.poll_write(&mut task, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut 0);
        assert!(matches!(asked, Poll::Ready(Err(Gone))));
        assert_eq!(asking.fate(), Fate::Refused);
    }
}
