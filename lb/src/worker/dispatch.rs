//! Whose part a connection is from here on.

use super::{connection::Accepted, shake, speak::speak, stream::Stream};
use crate::{config::Protocol, ring::executor};

/// Starts the connection's task. `begun`: the client's stream, where something was received of it already. A pointer, as a
/// task has room for its arguments as long as it lives.
pub(super) fn start(accepted: Accepted, begun: Option<Box<Stream>>, protocol: Protocol) {
    let tls = accepted.local().plan().tls(accepted.listener()).cloned();
    match tls {
        Some(server) => executor::spawn(shake::drive(accepted, begun, server, protocol)),
        None => speak(accepted, begun, protocol),
    }
}
