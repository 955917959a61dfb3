//! A listener's own protocol.

use super::{connection::Accepted, drive_h2, drive_l7, drive_relay, secure::Secure, stream::Stream};
use crate::{config::Protocol, ring::executor};

/// Whatever was to come before the listener's own protocol is done.
pub(super) fn speak(accepted: Accepted, begun: Option<Box<Stream>>, protocol: Protocol) {
    match protocol {
        Protocol::Http if accepted.secure().is_some_and(Secure::speaks_http2) => {
            executor::spawn(drive_h2::drive(accepted, begun));
        }
        Protocol::Http => executor::spawn(drive_l7::drive(accepted, begun)),
        // Nobody accepts at a socket of datagrams.
        Protocol::Udp => {}
        Protocol::Tcp => executor::spawn(drive_relay::drive(accepted, begun)),
    }
}
