//! What a probe says, and what it makes of the answer: one machine for each kind of check.
//!
//! ```text
//!  Script::question() --> to the backend      bytes, end --> Dialogue::handle, handle_end --> More | Up | Down
//! ```
//! A dialogue holds a bounded number of a peer's bytes, and gives the same answer however they are cut. Never sends,
//! never waits: deadlines are the driver's.

mod fault;
mod grpc;
mod http;
mod mysql;
mod postgres;
mod redis;

use std::{fmt::Display, sync::Arc};

pub use fault::{Fault, Found};
pub use grpc::{GrpcAnswer, PATH as GRPC_PATH};

use self::http::Answer;
use crate::config::{BodyTest, CheckKind, GrpcCheck, Statuses, UdpCheck};

/// Most bytes of an answer to anything but HTTP.
const REPLY_BYTES_MAX: usize = 8 << 10;

/// What one backend is asked, and what is expected of it.
#[derive(Clone, Debug)]
pub struct Script {
    label: Arc<str>,
    question: Arc<[u8]>,
    expected: Expected,
}

#[derive(Clone, Debug)]
enum Expected {
    /// Nobody is asked here.
    Program,
    Connection,
    /// An exchange of HTTP/2.
    Grpc,
    Http {
        status: Statuses,
        body: Option<BodyTest>,
        is_head: bool,
    },
    Datagram(Option<Arc<[u8]>>),
    Reply(fn(&[u8]) -> Found),
}

impl Script {
    /// For a backend at `address`.
    pub fn new(kind: &CheckKind, address: impl Display) -> Self {
        let (question, expected) = match kind {
            CheckKind::Tcp | CheckKind::Tls(_) => (Vec::new(), Expected::Connection),
            CheckKind::Grpc(check) => (grpc::question(&check.service), Expected::Grpc),
            CheckKind::Http(check) => {
                let (status, body) = (check.status.clone(), check.body.clone());
                (
                    http::question(check, &address.to_string()),
                    Expected::Http { status, body, is_head: check.is_head },
                )
            }
            CheckKind::Udp(UdpCheck { send, expect }) => {
                let bytes = send.as_ref().map(|payload| payload.bytes.to_vec());
                let expect = expect.as_ref().map(|payload| payload.bytes.clone());
                (bytes.unwrap_or_default(), Expected::Datagram(expect))
            }
            CheckKind::Redis => (redis::QUESTION.to_vec(), Expected::Reply(redis::judge)),
            CheckKind::Postgres => (postgres::question(), Expected::Reply(postgres::judge)),
            CheckKind::Mysql => (Vec::new(), Expected::Reply(mysql::judge)),
            CheckKind::Exec(_) => (Vec::new(), Expected::Program),
        };
        let label = match kind {
            CheckKind::Http(check) => format!("check {} {}", kind.name(), check.path),
            CheckKind::Grpc(GrpcCheck { service, .. }) if !service.is_empty() => {
                format!("check {} {service}", kind.name())
            }
            CheckKind::Exec(program) => format!("check exec {}", program.display()),
            kind => format!("check {}", kind.name()),
        };
        Self { label: label.into(), question: question.into(), expected }
    }

    /// `check http /healthz`, for reasons.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What goes to the backend first; empty where it speaks first.
    pub fn question(&self) -> &[u8] {
        &self.question
    }

    /// Whether it is a datagram that goes and one that comes.
    pub const fn is_datagram(&self) -> bool {
        matches!(self.expected, Expected::Datagram(_))
    }

    /// Whether a connection that is accepted, and secured where it is to be, is all that is asked.
    pub const fn is_connection(&self) -> bool {
        matches!(self.expected, Expected::Connection)
    }

    /// Whether it is asked and answered by HTTP/2, see [`GRPC_PATH`] and [`Self::judge`]; there is no dialogue then.
    pub const fn is_grpc(&self) -> bool {
        matches!(self.expected, Expected::Grpc)
    }

    /// What an answer of gRPC is found to be. Never [`Found::More`].
    pub fn judge(&self, answer: &GrpcAnswer<'_>) -> Found {
        grpc::judge(answer)
    }

    /// Whether silence until the deadline is as good as an answer.
    pub const fn may_be_silent(&self) -> bool {
        matches!(self.expected, Expected::Datagram(None))
    }

    /// Begins to listen.
    pub fn dialogue(&self) -> Dialogue<'_> {
        let hearing = match &self.expected {
            Expected::Connection | Expected::Program | Expected::Grpc => Hearing::Connection,
            Expected::Http { status, body, is_head } => {
                Hearing::Http(Box::new(Answer::new(status, body.as_ref(), *is_head)))
            }
            Expected::Datagram(expect) => Hearing::Datagram(expect.as_deref()),
            Expected::Reply(judge) => Hearing::Reply { judge: *judge, heard: Vec::new() },
        };
        Dialogue(hearing)
    }
}

/// One probe's answer, as it comes.
#[derive(Debug)]
pub struct Dialogue<'s>(Hearing<'s>);

#[derive(Debug)]
enum Hearing<'s> {
    Connection,
    Http(Box<Answer<'s>>),
    Datagram(Option<&'s [u8]>),
    Reply { judge: fn(&[u8]) -> Found, heard: Vec<u8> },
}

impl Dialogue<'_> {
    /// Bytes have come: of a connection the next ones, of datagrams a whole one. Not called again after an answer other
    /// than [`Found::More`].
    pub fn handle(&mut self, bytes: &[u8]) -> Found {
        match &mut self.0 {
            Hearing::Connection => Found::Up,
            Hearing::Http(answer) => answer.handle(bytes),
            Hearing::Datagram(None) => Found::Up,
            Hearing::Datagram(Some(expect)) => match memchr::memmem::find(bytes, expect) {
                Some(_) => Found::Up,
                None => Found::Down(Fault::wrong(format!(
                    "an answer of {} bytes without what is expected",
                    bytes.len()
                ))),
            },
            Hearing::Reply { judge, heard } => {
                let room = REPLY_BYTES_MAX - heard.len();
                heard.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
                match judge(heard) {
                    Found::More if heard.len() == REPLY_BYTES_MAX => Found::Down(Fault::malformed(format!(
                        "an answer of more than {REPLY_BYTES_MAX} bytes"
                    ))),
                    found => found,
                }
            }
        }
    }

    /// The backend has ended the connection. Never [`Found::More`].
    pub fn handle_end(&mut self) -> Found {
        match &mut self.0 {
            Hearing::Http(answer) => answer.handle_end(),
            _ => Found::Down(Fault::closed("closed before the answer")),
        }
    }
}

#[cfg(test)]
mod tests;
