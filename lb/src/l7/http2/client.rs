//! A connection to a backend, on the h2 crate, and the exchanges on it.
//!
//! ```text
//!  Wire --> Metered --> h2 --> Client::poll: everything that the connection does
//!                          `-- Requests::begin --> Asking: bytes of HTTP/1.1 in, bytes of HTTP/1.1 out
//! ```

use std::{
    cell::Cell,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream, client};
use http::{HeaderValue, Method, Request, header, uri::Scheme};

use super::{
    flow::{Gone, Inflow, poll_body, poll_raw},
    io::{Allowance, Found, Metered, READ_BYTES_MAX, Wire},
    meter::{Budgets, Meter},
    request::read_request,
    response::{write_grant, write_response},
    server::{CONNECTION_WINDOW, SEND_BUFFER_BYTES, STREAM_WINDOW},
    tunnel,
};
use crate::l7::http1::{Body, BodyReader, Side};

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
pub struct Client<W> {
    connection: Pin<Box<client::Connection<Metered<W>, Bytes>>>,
    found: Found,
    allowance: Allowance,
    is_over: Rc<Cell<bool>>,
}

/// Begins exchanges on a connection.
#[derive(Clone)]
pub struct Requests {
    requests: client::SendRequest<Bytes>,
    fields_max: usize,
    is_over: Rc<Cell<bool>>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// Says the first of a connection, and waits for what the backend says first: what it takes at once, and of what kind.
///
/// # Errors
/// The wire broke, or the backend does not speak HTTP/2.
pub async fn begin<W: Wire + Unpin>(wire: W, grants: &Grants) -> Result<(Client<W>, Requests), Gone> {
    let metered = Metered::new(wire, Meter::of_backend(grants.budgets));
    let (found, allowance, is_over) = (metered.found(), metered.allowance(), metered.is_over());
    let shaking = client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(grants.head_bytes)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .initial_max_send_streams(0)
        .handshake(metered);
    let (requests, connection) = shaking.await.map_err(|_| Gone)?;
    let requests = Requests { requests, fields_max: grants.fields_max, is_over: is_over.clone() };
    let mut client = Client { connection: Box::pin(connection), found, allowance, is_over };
    poll_fn(|task| match client.poll(task) {
        Poll::Ready(()) => Poll::Ready(Err(Gone)),
        Poll::Pending if requests.most() == 0 => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    Ok((client, requests))
}

impl<W: Wire + Unpin> Client<W> {
    /// Ready when it has ended, or must.
    pub fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.allowance.set(READ_BYTES_MAX);
        let polled = self.connection.as_mut().poll(task).map(drop);
        let polled = if self.found.get().is_some() { Poll::Ready(()) } else { polled };
        if polled.is_ready() {
            self.is_over.set(true);
        }
        polled
    }
}

impl Requests {
    /// Exchanges that the backend takes at once.
    pub fn most(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Whether the backend takes more: it has not said that it ends, and has not ended.
    pub fn is_open(&self) -> bool {
        !self.is_over.get()
    }

    /// An exchange whose request head comes as bytes. `is_secure`: the scheme is `https`.
    pub fn begin(&self, is_secure: bool) -> Asking {
        Asking {
            is_secure,
            fields_max: self.fields_max,
            fate: Fate::Unknown,
            is_over: self.is_over.clone(),
            request: Out::Head(self.requests.clone(), Vec::new()),
            response: In::Unasked(None),
        }
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

impl Fate {
    /// GOAWAY ends just those streams that it names as not looked at.
    fn of(error: &h2::Error) -> Self {
        let is_refused = error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
        match error {
            error if error.is_remote() && is_refused => Self::Refused,
            error if error.is_library() && error.is_reset() => Self::Malformed,
            _ => Self::Unknown,
        }
    }
}

/// One exchange.
pub struct Asking {
    is_secure: bool,
    fields_max: usize,
    fate: Fate,
    /// Of its connection.
    is_over: Rc<Cell<bool>>,
    request: Out,
    response: In,
}

enum Out {
    /// Of the head as much as has come.
    Head(client::SendRequest<Bytes>, Vec<u8>),
    Body(SendStream<Bytes>, BodyReader),
    /// Bytes as they are.
    Tunnel(SendStream<Bytes>),
    Ended(SendStream<Bytes>),
    Over,
}

enum In {
    /// Whoever waits already.
    Unasked(Option<Waker>),
    Awaited {
        response: client::ResponseFuture,
        was_head: bool,
        tunnel: Option<Box<tunnel::Ask>>,
    },
    Body(Inflow),
    Over,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

impl Asking {
    /// What is known of it once its stream is gone.
    pub const fn fate(&self) -> Fate {
        self.fate
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
                Out::Head(requests, head) => {
                    if ready!(requests.poll_ready(task)).is_err() {
                        // Numbers of streams run out, too, of which nobody else tells.
                        self.is_over.set(true);
                        return Poll::Ready(Err(self.refused()));
                    }
                    let before = head.len();
                    head.extend_from_slice(rest);
                    match memchr::memmem::find(head, b"\r\n\r\n") {
                        None => *taken += rest.len(),
                        Some(end) => {
                            head.truncate(end + 4);
                            *taken += head.len() - before;
                            self.ask()?;
                        }
                    }
                }
                Out::Body(stream, reader) => {
                    let (len, has_ended) = ready!(poll_body(task, stream, reader, rest))?;
                    *taken += len;
                    if has_ended && let Out::Body(stream, _) = std::mem::replace(&mut self.request, Out::Over)
                    {
                        self.request = Out::Ended(stream);
                    }
                }
                Out::Tunnel(stream) => *taken += ready!(poll_raw(task, stream, rest))?,
                // Nothing belongs there.
                Out::Ended(_) | Out::Over => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing of it has been sent, and nobody answers.
    fn refused(&mut self) -> Gone {
        self.fate = Fate::Refused;
        if let In::Unasked(Some(waker)) = std::mem::replace(&mut self.response, In::Over) {
            waker.wake();
        }
        Gone
    }

    /// The head is whole.
    fn ask(&mut self) -> Result<(), Gone> {
        let Out::Head(mut requests, head) = std::mem::replace(&mut self.request, Out::Over) else {
            return Err(Gone);
        };
        let scheme = if self.is_secure { Scheme::HTTPS } else { Scheme::HTTP };
        let mut request = read_request(&head, &scheme).map_err(|_| Gone)?;
        if is_grpc(&request) {
            // Of the connection before us, which is why it did not come along; nothing else is said by it.
            request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let ask = tunnel::Ask::of(&head, &mut request);
        if let Some(ask) = ask.filter(|_| requests.is_extended_connect_protocol_enabled()) {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(ask.protocol());
            let sent = requests.send_request(request, false);
            let (response, stream) = sent.map_err(|_| self.refused())?;
            self.request = Out::Tunnel(stream);
            self.await_response(In::Awaited { response, was_head: false, tunnel: Some(Box::new(ask)) });
            return Ok(());
        }
        let body = body_of(&request, &head);
        let was_head = request.method() == http::Method::HEAD;
        let reader = BodyReader::new(body, Side::Request).keeping_trailers();
        let sent = requests.send_request(request, reader.is_done());
        let (response, stream) = sent.map_err(|_| self.refused())?;
        self.request = if reader.is_done() { Out::Ended(stream) } else { Out::Body(stream, reader) };
        self.await_response(In::Awaited { response, was_head, tunnel: None });
        Ok(())
    }

    fn await_response(&mut self, response: In) {
        if let In::Unasked(Some(waker)) = std::mem::replace(&mut self.response, response) {
            waker.wake();
        }
    }

    /// Says the end of what goes through a tunnel; whether there is one, that has not ended.
    pub fn end_tunnel(&mut self) -> bool {
        let (after, has_ended) = match std::mem::replace(&mut self.request, Out::Over) {
            Out::Tunnel(mut stream) => {
                // Whoever has given the stream up hears nothing of it any more.
                let _ = stream.send_data(Bytes::new(), true);
                (Out::Ended(stream), true)
            }
            other => (other, false),
        };
        self.request = after;
        has_ended
    }

    /// Puts what comes next behind `out`, as HTTP/1.1 has it. False: there is nothing more.
    ///
    /// # Errors
    /// The stream was reset, the connection has ended, or the head is none.
    pub fn poll_read(&mut self, task: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<bool, Gone>> {
        let fate = &mut self.fate;
        match &mut self.response {
            In::Unasked(waker) => {
                *waker = Some(task.waker().clone());
                Poll::Pending
            }
            In::Awaited { response, was_head, tunnel } => {
                if let Poll::Ready(Some(interim)) = response.poll_informational(task) {
                    let (parts, ()) = interim.map_err(|error| gone(fate, Fate::of(&error)))?.into_parts();
                    let written = write_response(&parts, false, *was_head, self.fields_max, out);
                    return Poll::Ready(written.map(|_| true).map_err(|_| gone(fate, Fate::Malformed)));
                }
                let (parts, body) = ready!(Pin::new(response).poll(task))
                    .map_err(|error| gone(fate, Fate::of(&error)))?
                    .into_parts();
                let mut inflow = Inflow::new(body);
                if let Some(ask) = tunnel.take().filter(|_| parts.status.is_success()) {
                    write_grant(&parts, &ask, self.fields_max, out)
                        .map_err(|_| gone(fate, Fate::Malformed))?;
                    self.response = In::Body(inflow);
                    return Poll::Ready(Ok(true));
                }
                let has_body = !inflow.is_empty();
                let form = write_response(&parts, has_body, *was_head, self.fields_max, out)
                    .map_err(|_| gone(fate, Fate::Malformed))?;
                inflow.frame(form);
                self.response = In::Body(inflow);
                Poll::Ready(Ok(true))
            }
            In::Body(inflow) => inflow.poll_read(task, out),
            In::Over => Poll::Ready(Err(Gone)),
        }
    }

    /// Gives the exchange up.
    pub fn reset(&mut self) {
        match std::mem::replace(&mut self.request, Out::Over) {
            Out::Body(mut stream, _) | Out::Tunnel(mut stream) | Out::Ended(mut stream) => {
                stream.send_reset(Reason::CANCEL)
            }
            Out::Head(..) | Out::Over => {}
        }
        self.response = In::Over;
    }
}

fn gone(fate: &mut Fate, found: Fate) -> Gone {
    *fate = found;
    Gone
}

fn is_grpc(request: &Request<()>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What follows a head of ours (RFC 9112, 6.3).
fn body_of(request: &Request<()>, head: &[u8]) -> Body {
    let length = request.headers().get(header::CONTENT_LENGTH);
    match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
        Some(0) => Body::None,
        Some(length) => Body::Length(length),
        None if super::flow::says_chunked(head) => Body::Chunked,
        None => Body::None,
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io, rc::Rc, time::Instant};

    use super::*;
    use crate::config::Limits;

    /// What a backend says, as far as a test has let it; at last perhaps the end.
    #[derive(Clone, Default)]
    struct Script(Rc<RefCell<(Vec<u8>, bool)>>);

    impl Wire for Script {
        fn poll_read(&mut self, _: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
            let (said, has_ended) = &mut *self.0.borrow_mut();
            if said.is_empty() && !*has_ended {
                return Poll::Pending;
            }
            let len = said.len().min(room.len());
            room[..len].copy_from_slice(&said[..len]);
            said.drain(..len);
            Poll::Ready(Ok(len))
        }

        fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
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
        script.0.borrow_mut().0 = frame(4, 0, 0, &[]);
        let limits = Limits::default();
        let grants = Grants { head_bytes: 1 << 14, fields_max: 100, budgets: Budgets::new(&limits) };
        let begun = std::pin::pin!(begin(script.clone(), &grants)).poll(&mut task);
        let Poll::Ready(Ok((mut client, requests))) = begun else { panic!("no connection") };
        let mut asking = requests.begin(false);
        let mut taken = 0;
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(matches!(asking.poll_write(&mut task, head, &mut taken), Poll::Ready(Ok(()))));
        assert!(client.poll(&mut task).is_pending());
        *script.0.borrow_mut() = (said.to_vec(), ends);
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
            // Which ends the connection.
            ("a name that is none", answer(&[0x88, 0, 1, b'A', 1, b'b']), false, Some(Fate::Unknown)),
            ("an answer", answer(&[0x88]), false, None),
        ] {
            assert_eq!(fate(&said, ends), expected, "{what}");
        }
    }

    #[test]
    fn what_was_never_sent_is_refused() {
        let mut task = Context::from_waker(Waker::noop());
        let script = Script::default();
        script.0.borrow_mut().0 = frame(4, 0, 0, &[]);
        let grants =
            Grants { head_bytes: 1 << 14, fields_max: 100, budgets: Budgets::new(&Limits::default()) };
        let begun = std::pin::pin!(begin(script.clone(), &grants)).poll(&mut task);
        let Poll::Ready(Ok((mut client, requests))) = begun else { panic!("no connection") };
        let mut asking = requests.begin(false);
        script.0.borrow_mut().0 = frame(7, 0, 0, &[0; 8]);
        _ = client.poll(&mut task);
        assert!(!requests.is_open());
        let asked = asking.poll_write(&mut task, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut 0);
        assert!(matches!(asked, Poll::Ready(Err(Gone))));
        assert_eq!(asking.fate(), Fate::Refused);
    }
}
