//! Where a backend is.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Longest path or name of a unix socket, in bytes: `sun_path` of unix(7) less the NUL that ends or begins it.
pub const UNIX_BYTES_MAX: usize = 107;

/// Where a backend is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendAddress {
    /// An IP address with its port; 0 in a pool that only VIPs use.
    Ip(SocketAddr),
    /// A socket of this host.
    Unix(UnixAddress),
}

/// A unix stream socket: `/run/app.sock`, or `@name` in the abstract namespace (unix(7)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixAddress(Arc<str>);

impl UnixAddress {
    /// `None`: neither an absolute path nor an abstract name, or too long for the kernel.
    pub fn new(text: &str) -> Option<Self> {
        let is_name = text.strip_prefix('@').is_some_and(|name| !name.is_empty());
        let is_path = text.starts_with('/') && !text.ends_with('/');
        let len = if is_name { text.len() - 1 } else { text.len() };
        ((is_path || is_name) && len <= UNIX_BYTES_MAX && !text.contains('\0')).then(|| Self(text.into()))
    }

    /// As `sun_path` has it: a path, or NUL and a name.
    pub fn sun_path(&self) -> String {
        match self.0.strip_prefix('@') {
            Some(name) => format!("\0{name}"),
            None => self.0.to_string(),
        }
    }
}

impl BackendAddress {
    /// Its IP address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip())
    }

    /// Its IP address and port, if it has them.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for BackendAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.0)
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_paths_or_names() {
        let path = UnixAddress::new("/run/app.sock").unwrap();
        assert_eq!(
            (path.to_string(), path.sun_path()),
            ("unix:/run/app.sock".into(), "/run/app.sock".into())
        );
        let name = UnixAddress::new("@app").unwrap();
        assert_eq!((name.to_string(), name.sun_path()), ("unix:@app".into(), "\0app".into()));
        let longest = |first: &str| format!("{first}{}", "x".repeat(UNIX_BYTES_MAX - 1));
        for good in [longest("/"), longest("@x")] {
            assert!(UnixAddress::new(&good).is_some(), "{good}");
            assert!(UnixAddress::new(&format!("{good}x")).is_none(), "{good}x");
        }
        for bad in ["", "@", "/", "/run/", "app.sock", "./app.sock", "/a\0b", "@a\0b"] {
            assert!(UnixAddress::new(bad).is_none(), "{bad:?}");
        }
    }
}
