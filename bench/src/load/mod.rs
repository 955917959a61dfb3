//! Load: by the field's own generators where they do it (h2load for closed loops, oha for open ones), by threads of
//! ours for plain TCP and for connections that only wait.

mod h2load;
mod handshake;
mod idle;
mod oha;
mod pin;
mod tcp;
mod tls;

pub(crate) use h2load::{Closed, Load, Speaks, closed_loop};
pub(crate) use handshake::{Greeters, Session};
pub(crate) use idle::{Idle, Waits};
pub(crate) use oha::{Latencies, Open, open_loop, program as oha_program};
pub(crate) use pin::pin;
pub(crate) use tcp::{Bulk, TcpBackend, bulk, churn, echo};
