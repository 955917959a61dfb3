//! A connection of a client, on the h2 crate.
//!
//! ```text
//!  Wire --> Metered --> h2 --> Server::poll_next --> Exchange { head, inflow, outflow }, one for each request
//!             `- too much of something --> GOAWAY ENHANCE_YOUR_CALM
//! ```

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, server};

use super::{
    flow::{Inflow, Outflow},
    io::{Allowance, Found, Metered, READ_BYTES_MAX, Wire},
    meter::{Abuse, Budgets, Meter},
};

/// Flow-control windows: what one stream, and what a connection may send ahead of its reader.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
/// See [`STREAM_WINDOW`].
pub(super) const CONNECTION_WINDOW: u32 = 1 << 20;
/// What one stream may have waiting to be sent.
pub(super) const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Streams that a client may reset before anybody has looked at them.
const PENDING_RESETS_MAX: usize = 20;

/// What a listener grants its clients.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Requests at once.
    pub streams_max: u32,
    /// Of a head: names, values, and 32 bytes for each field (RFC 9113, 6.5.2).
    pub head_bytes: u32,
    /// What is too much.
    pub budgets: Budgets,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client closed it, or all was done that was begun before we said that it ends.
    Well,
    /// The wire broke.
    Broken,
    /// The client broke the protocol; it was told so.
    Protocol,
    /// The client did too much of something; it was told so.
    Abuse(Abuse),
}

/// See the module.
pub struct Server<W> {
    state: State<W>,
    found: Found,
    allowance: Allowance,
    is_calmed: bool,
}

enum State<W> {
    Shaking(Pin<Box<server::Handshake<Metered<W>, Bytes>>>),
    Open(Box<server::Connection<Metered<W>, Bytes>>),
    Over,
}

/// A request that has begun.
#[derive(Debug)]
pub struct Asked {
    /// Its head.
    pub head: http::request::Parts,
    /// Its body.
    pub inflow: Inflow,
    /// Its answer.
    pub outflow: Outflow,
}

impl<W: Wire + Unpin> Server<W> {
    /// Before the preface was read.
    pub fn new(wire: W, settings: &Settings) -> Self {
        let metered = Metered::new(wire, Meter::of_client(settings.budgets));
        let (found, allowance) = (metered.found(), metered.allowance());
        let shaking = server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(settings.streams_max)
            .max_header_list_size(settings.head_bytes)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(Some(settings.budgets.resets_emitted as usize))
            .enable_connect_protocol()
            .handshake(metered);
        Self { state: State::Shaking(Box::pin(shaking)), found, allowance, is_calmed: false }
    }

    /// The next request. Everything that a connection does it does in here: whoever waits for something on one of its
    /// streams waits for somebody to poll this.
    pub fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Result<Asked, Ended>> {
        loop {
            match &mut self.state {
                State::Shaking(shaking) => match ready!(shaking.as_mut().poll(task)) {
                    Ok(connection) => self.state = State::Open(Box::new(connection)),
                    Err(error) => return Poll::Ready(Err(self.end(Some(&error)))),
                },
                State::Open(connection) => {
                    let next = connection.poll_accept(task);
                    if next.is_pending() {
                        // All that came of it was taken.
                        self.allowance.set(READ_BYTES_MAX);
                    }
                    if let (Some(abuse), false) = (self.found.get(), self.is_calmed) {
                        self.is_calmed = true;
                        connection.abrupt_shutdown(abuse.reason());
                        continue;
                    }
                    return Poll::Ready(match ready!(next) {
                        Some(Ok((request, respond))) => {
                            let (head, body) = request.into_parts();
                            Ok(Asked { head, inflow: Inflow::new(body), outflow: Outflow::answer(respond) })
                        }
                        Some(Err(error)) => Err(self.end(Some(&error))),
                        None => Err(self.end(None)),
                    });
                }
                State::Over => return Poll::Ready(Err(Ended::Well)),
            }
        }
    }

    fn end(&mut self, error: Option<&h2::Error>) -> Ended {
        self.state = State::Over;
        match (self.found.get(), error) {
            (Some(abuse), _) if abuse.reason() != Reason::ENHANCE_YOUR_CALM => Ended::Protocol,
            (Some(abuse), _) => Ended::Abuse(abuse),
            (None, None) => Ended::Well,
            (None, Some(error)) if error.is_io() => Ended::Broken,
            // The client said why it goes.
            (None, Some(error)) if error.is_remote() => Ended::Well,
            (None, Some(error)) if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) => {
                Ended::Abuse(Abuse::Resets)
            }
            (None, Some(error)) if error.reason() == Some(Reason::NO_ERROR) => Ended::Well,
            (None, Some(_)) => Ended::Protocol,
        }
    }

    /// Takes nothing new; what was begun is finished (RFC 9113, 6.8: said twice).
    pub fn begin_end(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }
}
