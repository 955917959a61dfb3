//! Sockets of probes, and those that go the way of a VIP's traffic.

use std::{
    cell::RefCell,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use glommio::{net::TcpStream, timer::sleep};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{model::UnixAddress, steering::ProbePorts, sys::adopt};

/// Between two looks at a connection under way: answers come within a millisecond or not soon.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(16)];

/// The way of a VIP's traffic.
#[derive(Clone, Copy)]
pub(super) struct Through<'p> {
    /// Number of the probe.
    pub(super) number: u16,
    pub(super) ports: &'p RefCell<ProbePorts>,
}

/// A port on which an answer is expected, until dropped; the socket is closed before.
pub(super) struct Held<'p> {
    port: u16,
    protocol: Protocol,
    ports: &'p RefCell<ProbePorts>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let forgotten = self.ports.borrow_mut().forget(self.port, is_udp(self.protocol));
        if let Err(error) = forgotten {
            tracing::warn!(%error, port = self.port, "a probe's port stays in its map");
        }
    }
}

fn is_udp(protocol: Protocol) -> bool {
    protocol == Protocol::UDP
}

impl<'p> Through<'p> {
    /// A connection to `address`, which is reset when it is closed: an orderly end would take longer than its port is
    /// known.
    ///
    /// # Errors
    /// The backend's refusal, [`io::ErrorKind::TimedOut`] at the deadline, or what this host refuses.
    pub(super) async fn connect(
        self,
        address: SocketAddr,
        deadline: Instant,
    ) -> io::Result<(TcpStream, Held<'p>)> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_linger(Some(Duration::ZERO))?;
        let held = self.hold(&socket, address, Protocol::TCP)?;
        establish(&socket, address, deadline).await?;
        Ok((adopt(socket), held))
    }

    /// A socket for datagrams to and from `address`.
    ///
    /// # Errors
    /// What this host refuses.
    pub(super) fn datagrams(self, address: SocketAddr) -> io::Result<(Socket, Held<'p>)> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        let held = self.hold(&socket, address, Protocol::UDP)?;
        socket.connect(&address.into())?;
        Ok((socket, held))
    }

    /// Marks a socket, and says which port it answers on.
    fn hold(self, socket: &Socket, address: SocketAddr, protocol: Protocol) -> io::Result<Held<'p>> {
        socket.set_mark(ProbePorts::mark(self.number))?;
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(any, 0).into())?;
        let port = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?.port();
        let expected = self.ports.borrow_mut().expect(port, is_udp(protocol), self.number);
        expected.map_err(io::Error::other)?;
        Ok(Held { port, protocol, ports: self.ports })
    }
}

/// A socket for datagrams to and from `address`.
///
/// # Errors
/// What this host refuses.
pub(super) fn datagrams(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&address.into())?;
    Ok(socket)
}

/// Connects to a socket of this host. One whose queue is full is asked again until the deadline: nobody takes from it.
///
/// # Errors
/// The refusal, or [`io::ErrorKind::TimedOut`] at the deadline.
pub(super) async fn connect_unix(address: &UnixAddress, deadline: Instant) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let address = SockAddr::unix(address.sun_path())?;
    let [mut pause, pause_max] = PAUSES;
    loop {
        match socket.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        pause = (pause * 2).min(pause_max);
    }
}

/// glommio dials sockets of its own making only; this one is looked at now and then.
async fn establish(socket: &Socket, address: SocketAddr, deadline: Instant) -> io::Result<()> {
    match socket.connect(&address.into()) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
        done => return done,
    }
    let [mut pause, pause_max] = PAUSES;
    loop {
        sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        let mut fds = [PollFd::new(socket, PollFlags::OUT)];
        if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
            return socket.take_error()?.map_or(Ok(()), Err);
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        pause = (pause * 2).min(pause_max);
    }
}
