//! Where the API is to be had: a unix socket, and a TCP endpoint where one is wanted.

use std::{
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
};

use super::socket::{self, outlive_predecessor};

/// Both doors, open.
#[derive(Debug)]
pub struct OpenDoors {
    /// The unix socket.
    pub unix: OwnedFd,
    /// The TCP endpoint.
    pub tcp: Option<OwnedFd>,
}

/// Where the doors are.
#[derive(Clone, Debug)]
pub struct Doors {
    /// The unix socket.
    pub socket: PathBuf,
    /// The TCP endpoint.
    pub http: Option<SocketAddr>,
}

impl Doors {
    /// Whether both could be opened at this moment. Waits a little for a predecessor that is ending.
    ///
    /// # Errors
    /// One is taken, most likely by another daemon; the message names it.
    pub fn check(&self) -> io::Result<()> {
        outlive_predecessor(|| socket::Placed::prepare(&self.socket))
            .map_err(|error| named(&self.socket.display(), error))?;
        let Some(address) = self.http else { return Ok(()) };
        outlive_predecessor(|| socket::check_unanswered(address)).map_err(|error| named(&address, error))
    }

    /// Opens both.
    ///
    /// # Errors
    /// An address or path cannot be bound; the message names it.
    pub fn open(&self) -> io::Result<OpenDoors> {
        self.open_but(None, None)
    }

    /// The same, but for those that are open already.
    ///
    /// # Errors
    /// The same.
    pub fn open_but(&self, unix: Option<OwnedFd>, tcp: Option<OwnedFd>) -> io::Result<OpenDoors> {
        let unix = unix.map_or_else(|| open_unix(&self.socket), Ok);
        let unix = unix.map_err(|error| named(&self.socket.display(), error))?;
        let open_tcp = |address: SocketAddr| {
            let tcp = outlive_predecessor(|| std::net::TcpListener::bind(address)).map(OwnedFd::from);
            tcp.map_err(|error| named(&address, error))
        };
        let tcp = self.http.map(|address| tcp.map_or_else(|| open_tcp(address), Ok)).transpose()?;
        Ok(OpenDoors { unix, tcp })
    }
}

fn open_unix(path: &Path) -> io::Result<OwnedFd> {
    let place = socket::Placed::prepare(path)?;
    let listener = UnixListener::bind(place.temporary())?;
    place.publish()?;
    Ok(listener.into())
}

fn named(place: &dyn std::fmt::Display, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    let cause = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process listens there (is lb running?)",
        _ => "",
    };
    io::Error::other(format!("admin endpoint {place}: {error}{cause}"))
}
