//! Names that backends stand behind, and what they stand for at a time.

use std::{fmt, net::SocketAddr, sync::Arc};

/// Longest name, in bytes as it is written (RFC 1035, 2.3.4: 255 octets on the wire).
const NAME_BYTES_MAX: usize = 253;
/// Longest label (the same).
const LABEL_BYTES_MAX: usize = 63;

/// A domain name, absolute: lower-cased, without the dot at its end. Search domains are never applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(Arc<str>);

impl DomainName {
    /// Labels of letters, digits, hyphens and underscores; the last one not of digits alone, which would be an address
    /// that was misspelled. `None`: it is something else.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label.bytes().all(is_known)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        let is_name = text.len() <= NAME_BYTES_MAX
            && text.split('.').all(is_label)
            && last.bytes().any(|byte| !byte.is_ascii_digit());
        is_name.then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// Without the dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is asked for a pool's backends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendName {
    /// Addresses of a host (A and AAAA), all with this port.
    Host(DomainName, u16),
    /// A service (SRV, RFC 2782), which has ports, weights and priorities of its own.
    Service(DomainName),
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name, port) => write!(f, "{name}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
        }
    }
}

/// One backend that a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FoundBackend {
    /// Where it is.
    pub address: SocketAddr,
    /// What a service says of its weight, 1 ..= 1000; `None`: whatever the config says.
    pub weight: Option<u16>,
    /// A service has others that come first.
    pub backup: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_and_no_addresses() {
        for (text, name) in [
            ("api.internal", "api.internal"),
            ("API.Internal.", "api.internal"),
            ("app", "app"),
            ("_http._tcp.api.internal", "_http._tcp.api.internal"),
            ("1.2.3.4.example", "1.2.3.4.example"),
            ("10-0-0-1", "10-0-0-1"),
        ] {
            assert_eq!(DomainName::new(text).map(|name| name.to_string()).as_deref(), Some(name));
        }
        let long = |labels| vec!["x".repeat(60); labels].join(".");
        assert!(DomainName::new(&long(4)).is_some());
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "10.0.0.300",
            "1",
            "a b",
            "*.a",
            "-a",
            "a-.b",
            "ä.de",
            &"x".repeat(64),
            &long(5),
        ] {
            assert!(DomainName::new(bad).is_none(), "{bad:?}");
        }
    }
}
