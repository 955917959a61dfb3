//! Names that certificates are for.

use std::{fmt, net::IpAddr};

/// A name that a certificate is for: lower case, no last dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertificateName {
    /// This one.
    Exact(Box<str>),
    /// `*.` and this: one label more.
    Wildcard(Box<str>),
}

impl CertificateName {
    /// As it stands in a certificate.
    pub fn of(text: &str) -> Self {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match text.strip_prefix("*.") {
            Some(parent) => Self::Wildcard(parent.into()),
            None => Self::Exact(text.into()),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// An address as it stands in a certificate (RFC 5280, 4.2.1.6).
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
