//! A connection that is made only to see that it can be, by the way of a VIP's traffic.

use std::{
    cell::RefCell,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use glommio::timer::sleep;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::steering::ProbePorts;

/// Between two looks at a connection under way: answers come within a millisecond or not soon.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(16)];

/// Connects to `address` as probe `number` and resets the connection: the backend keeps nothing of it.
///
/// # Errors
/// The backend's refusal, [`io::ErrorKind::TimedOut`] at the deadline, or what this host refuses.
pub(super) async fn connect(
    address: SocketAddr,
    number: u16,
    ports: &RefCell<ProbePorts>,
    deadline: Instant,
) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_mark(ProbePorts::mark(number))?;
    socket.set_linger(Some(Duration::ZERO))?;
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    let port = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?.port();
    ports.borrow_mut().expect(port, number).map_err(io::Error::other)?;
    let outcome = establish(&socket, address, deadline).await;
    // The reset goes out while its port is still known.
    drop(socket);
    ports.borrow_mut().forget(port).map_err(io::Error::other)?;
    outcome
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
