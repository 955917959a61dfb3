//! Why a probe did not end as it should, whoever's fault that is.

use std::io;

use rustix::io::Errno;

use super::probe_tls;
use crate::{health::Fault, metrics::ProbeEnd, tls::Why};

/// How a probe ended, if not as it should.
#[derive(Debug)]
pub(super) enum Miss {
    /// Nothing came until the deadline.
    Silent {
        /// A connection was there.
        is_connected: bool,
    },
    /// The backend's fault, or the network's.
    Fault(Fault),
    /// This host could not ask, and why.
    Local(String),
}

/// Why a call failed, as a miss.
pub(super) fn miss(error: &io::Error, is_connected: bool) -> Miss {
    let errno = Errno::from_io_error(error);
    let fault = |end, text: String| Miss::Fault(Fault { end, text });
    match probe_tls::refusal(error) {
        Some(of) if of.why == Why::PeerCertificate => return fault(ProbeEnd::WrongAnswer, of.to_string()),
        Some(of) => return fault(ProbeEnd::Malformed, of.to_string()),
        None => {}
    }
    match (error.kind(), errno) {
        // As glommio says that its timeout came first.
        (io::ErrorKind::TimedOut, _) | (_, Some(Errno::CANCELED)) => Miss::Silent { is_connected },
        (_, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL))
        | (_, Some(Errno::PERM | Errno::ACCESS)) => Miss::Local(error.to_string()),
        (_, Some(Errno::CONNREFUSED)) => fault(ProbeEnd::Refused, "connection refused".to_owned()),
        (io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, _) => {
            fault(ProbeEnd::Closed, "reset before the answer".to_owned())
        }
        (io::ErrorKind::UnexpectedEof, _) => fault(ProbeEnd::Closed, "closed before the answer".to_owned()),
        _ => fault(ProbeEnd::Unreachable, format!("unreachable: {error}")),
    }
}
