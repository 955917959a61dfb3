//! Why there is no TLS with a peer.

use std::fmt;

use rustls::{AlertDescription, Error};

use super::wording::said;

/// Why there is no TLS with a peer, or no more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// What came first is no ClientHello, or too long.
    Hello,
    /// Version, suite, group or protocol: nothing that both have.
    NothingInCommon,
    /// No certificate here is for the name that was asked for.
    NoCertificate,
    /// The peer's certificate is missing or not good.
    PeerCertificate,
    /// The peer said that it will not.
    Alert,
    /// The protocol was broken: a message out of turn, a record that does not open.
    Protocol,
}

/// The end of a connection: why, and what the peer is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For counters.
    pub why: Why,
    /// Records for the peer; may be empty.
    pub alert: Vec<u8>,
    /// For people.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(super) fn new(error: &Error, alert: Vec<u8>) -> Self {
        Self { why: why(error), alert, text: said(error) }
    }

    /// Whoever has broken off has nothing more to say.
    pub fn over() -> Self {
        Self { why: Why::Protocol, alert: Vec::new(), text: "nothing can be said any more".to_owned() }
    }
}

pub(super) fn why(error: &Error) -> Why {
    match error {
        Error::InvalidCertificate(_)
        | Error::NoCertificatesPresented
        | Error::InvalidCertRevocationList(_)
        | Error::UnsupportedNameType => Why::PeerCertificate,
        Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::NoApplicationProtocol,
        )
        | Error::PeerIncompatible(_)
        | Error::NoApplicationProtocol => Why::NothingInCommon,
        Error::AlertReceived(_) => Why::Alert,
        _ => Why::Protocol,
    }
}
