//! A connection of a client.

use std::task::{Context, Poll};

use lb_http2::{Abuse, Budgets, Connection, Fault};

use super::{
    BodyForm, Wire,
    board::{Board, News},
    flow::{Inflow, Outflow},
    link::{Link, OUT_BYTES_MAX, Over},
};
use crate::model::reason::CloseReason;

/// Flow-control windows: what one stream, and what a connection may send ahead of its reader.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
/// See [`STREAM_WINDOW`].
pub(super) const CONNECTION_WINDOW: u32 = 1 << 20;
/// `:method`, `:scheme`, `:authority` and `:path`, which are no fields of HTTP/1.1.
const PSEUDO_FIELDS: u32 = 4;

/// What a listener grants its clients.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Requests at once.
    pub streams_max: u32,
    /// Of a head: names, values, and 32 bytes for each field (RFC 9113, 6.5.2).
    pub head_bytes: u32,
    /// Fields of a head, crumbs of cookies counted each.
    pub fields_max: usize,
    /// What is too much.
    pub budgets: Budgets,
}

/// What the engine grants.
pub(super) fn granted(head_bytes: u32, fields_max: usize, budgets: Budgets) -> lb_http2::Settings {
    let fields_max = u32::try_from(fields_max).unwrap_or(u32::MAX);
    lb_http2::Settings {
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        head_bytes_max: head_bytes,
        head_fields_max: fields_max.saturating_add(PSEUDO_FIELDS),
        out_bytes_max: OUT_BYTES_MAX,
        budgets,
        ..lb_http2::Settings::default()
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client closed it, or all was done that was begun before we said that it ends.
    Well,
    /// The wire broke, or the client closed it while something went on.
    Broken,
    /// The client broke the protocol; it is told so.
    Protocol,
    /// The client did too much of something; it is told so.
    Abuse(Abuse),
}

/// See the module.
pub struct Server<W: Wire> {
    wire: W,
    link: Link,
    ended: Option<Ended>,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// A request that has begun.
    Asked(Asked),
    /// One that was refused, as its client was told.
    Refused(CloseReason),
}

/// A request that has begun.
#[derive(Debug)]
pub struct Asked {
    /// Its head as HTTP/1.1 has it, and what has come behind that.
    pub head: Vec<u8>,
    /// Its method is HEAD.
    pub is_head: bool,
    /// What follows.
    pub form: BodyForm,
    /// Its body.
    pub inflow: Inflow,
    /// Its answer.
    pub outflow: Outflow,
}

impl<W: Wire> Server<W> {
    /// Before the preface was read.
    pub fn new(wire: W, settings: &Settings) -> Self {
        let engine = Connection::server(lb_http2::Settings {
            streams_max: settings.streams_max,
            ..granted(settings.head_bytes, settings.fields_max, settings.budgets)
        });
        let link = Link::new(engine, Board::new(true, settings.fields_max));
        Self { wire, link, ended: None }
    }

    /// The next request. Everything that a connection does it does in here: whoever waits for something on one of its
    /// streams waits for somebody to poll this.
    pub fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Result<Next, Ended>> {
        loop {
            if let Some(next) = self.take_news() {
                return Poll::Ready(Ok(next));
            }
            if let Some(ended) = self.ended {
                return Poll::Ready(Err(ended));
            }
            let mut core = self.link.core();
            let polled = core.poll(&mut self.wire, task);
            let (has_news, going) = (!core.board.news.is_empty(), core.engine.streams());
            let fault = core.engine.fault();
            drop(core);
            match polled {
                Poll::Ready(over) => {
                    self.link.end();
                    self.ended = Some(ended(over, fault, going));
                }
                Poll::Pending if has_news => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn take_news(&mut self) -> Option<Next> {
        loop {
            let mut core = self.link.core();
            let (key, form, is_head) = match core.board.news.pop_front()? {
                News::Refused(reason) => return Some(Next::Refused(reason)),
                News::Asked { key, form, is_head } => (key, form, is_head),
            };
            // What was given up before anybody looked at it is not begun.
            if core.board.flows.get(key).is_none_or(|flow| flow.is_gone) {
                core.board.flows.try_remove(key);
                continue;
            }
            drop(core);
            let inflow = Inflow::new(self.link.handle(key));
            let outflow = Outflow::new(self.link.handle(key), form == BodyForm::Tunnel);
            let mut head = Vec::new();
            inflow.take(&mut head);
            return Some(Next::Asked(Asked { head, is_head, form, inflow, outflow }));
        }
    }

    /// Ready once all is sent, or cannot be: of a connection that has ended the last that is said.
    pub fn poll_flush(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.link.core().poll_flush(&mut self.wire, task).map(drop)
    }

    /// Takes nothing new; what was begun is finished (RFC 9113, 6.8: said twice).
    pub fn begin_end(&mut self) {
        let mut core = self.link.core();
        core.engine.shutdown();
        core.settle();
    }

    /// Gives back memory that has no use while nothing goes on.
    pub fn trim(&mut self) {
        self.link.core().trim();
    }
}

fn ended(over: Over, fault: Option<Fault>, going: usize) -> Ended {
    match (over, fault) {
        (Over::Fault, Some(Fault::Abuse(abuse))) => Ended::Abuse(abuse),
        (Over::Fault, _) => Ended::Protocol,
        (Over::Broken, _) => Ended::Broken,
        (Over::Closed, _) if going > 0 => Ended::Broken,
        (Over::Closed | Over::Done, _) => Ended::Well,
    }
}

impl<W: Wire> Drop for Server<W> {
    fn drop(&mut self) {
        self.link.end();
    }
}
