//! The network of a simulated kernel: connections between what the worker has (the near end) and what a test's scripts
//! have (the far end).
//!
//! A connection is a pair of AF_UNIX stream sockets, since those do everything at once and depend on nothing but what was done
//! to them, and splice(2) works on them. What TCP has and they have not is told beside them: a reset, and that it overtakes
//! bytes; addresses.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    os::{
        fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use super::rng::Rng;

/// A connection's number, in the order of their making.
pub(crate) type Conn = usize;

struct Link {
    far: Option<UnixStream>,
    near: Option<RawFd>,
    client: Option<SocketAddr>,
    /// The worker's close was a reset, by its wish or as it left bytes unread.
    reset_by_worker: bool,
    /// The network broke it.
    broken: bool,
    /// The far end is closed, and whatever still comes is answered by a reset then.
    closing: Option<Duration>,
    /// Operations on it are neither late nor short.
    prompt: bool,
    /// The network breaks it with so many more operations.
    breaks_after: Option<u32>,
    rng: Rng,
}

/// What came of a script's read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Bytes(Vec<u8>),
    Nothing,
    End,
    Reset,
}

/// What came of a script's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Bytes(usize),
    Full,
    Broken,
}

/// See the module.
pub(crate) struct Net {
    /// Since the run began.
    pub(crate) now: Duration,
    pub(crate) rng: Rng,
    /// What happened, where somebody wants to know.
    pub(crate) trace: Option<Vec<String>>,
    /// Digest of what happened.
    pub(crate) digest: u64,
    /// Of a thousand connections, how many the network breaks.
    pub(crate) breaks: usize,
    links: Vec<Link>,
    by_near: BTreeMap<RawFd, Conn>,
    pub(super) arrivals: VecDeque<Conn>,
    /// Near ends with such an operation in flight.
    pub(super) receiving: BTreeSet<RawFd>,
    pub(super) sending: BTreeSet<RawFd>,
}

impl Net {
    pub(super) fn new(seed: u64, is_traced: bool) -> Self {
        Self {
            now: Duration::ZERO,
            rng: Rng::new(seed),
            trace: is_traced.then(Vec::new),
            digest: 0,
            breaks: 0,
            links: Vec::new(),
            by_near: BTreeMap::new(),
            arrivals: VecDeque::new(),
            receiving: BTreeSet::new(),
            sending: BTreeSet::new(),
        }
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let text = what();
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.6} {text}", now.as_secs_f64()));
        }
    }

    fn link(&mut self, client: Option<SocketAddr>) -> (Conn, UnixStream) {
        let conn = self.links.len();
        let mut rng = self.rng.fork(conn as u64 + 1);
        let (near, far) = UnixStream::pair().expect("descriptors for a connection");
        for end in [&near, &far] {
            end.set_nonblocking(true).expect("a flag of a socket");
            let _ =
                socket2::SockRef::from(end).set_send_buffer_size(rng.pick(&[2 << 10, 16 << 10, 90 << 10]));
        }
        let breaks_after = rng.per_mille(self.breaks).then(|| rng.below(30) as u32);
        self.links.push(Link {
            far: Some(far),
            near: None,
            client,
            reset_by_worker: false,
            broken: false,
            closing: None,
            prompt: false,
            breaks_after,
            rng,
        });
        (conn, near)
    }

    /// A client connects; its connection waits to be accepted.
    pub(crate) fn arrive(&mut self, client: SocketAddr) -> Conn {
        let (conn, near) = self.link(Some(client));
        self.bind(conn, near.into_raw_fd());
        self.arrivals.push_back(conn);
        conn
    }

    /// The worker's dial succeeds: `near` becomes the near end.
    pub(super) fn connected(&mut self, near: RawFd) -> Conn {
        let (conn, end) = self.link(None);
        // SAFETY: both are open; the number stays the worker's.
        unsafe { libc::dup3(end.as_raw_fd(), near, libc::O_CLOEXEC) };
        self.bind(conn, near);
        conn
    }

    fn bind(&mut self, conn: Conn, near: RawFd) {
        self.links[conn].near = Some(near);
        self.by_near.insert(near, conn);
    }

    pub(super) fn conn(&self, near: RawFd) -> Option<Conn> {
        self.by_near.get(&near).copied()
    }

    pub(super) fn client(&self, near: RawFd) -> Option<SocketAddr> {
        self.links[self.conn(near)?].client
    }

    /// Whether what is done on it now is neither late nor short.
    pub(super) fn is_prompt(&self, near: RawFd) -> bool {
        self.conn(near).is_some_and(|conn| self.links[conn].prompt)
    }

    /// From now on nothing is late or short there.
    pub(crate) fn be_prompt(&mut self, conn: Conn) {
        self.links[conn].prompt = true;
    }

    /// An operation begins on the near end: whether the network breaks the connection now.
    pub(super) fn breaks_now(&mut self, near: RawFd) -> bool {
        let Some(conn) = self.conn(near) else { return false };
        match &mut self.links[conn].breaks_after {
            Some(0) => {
                self.links[conn].breaks_after = None;
                self.break_off(conn);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// Both ends find the connection reset.
    pub(super) fn break_off(&mut self, conn: Conn) {
        self.note(|| format!("network breaks {conn}"));
        self.links[conn].broken = true;
        self.reset(conn);
    }

    /// Whether the network broke it.
    pub(crate) fn is_broken(&self, conn: Conn) -> bool {
        self.links[conn].broken
    }

    /// The worker closes its end.
    pub(super) fn closed(&mut self, near: RawFd) {
        let linger = socket2::SockRef::from(&Borrowed(near)).linger().ok().flatten();
        let unread = waiting(near);
        if let Some(conn) = self.by_near.remove(&near) {
            let is_reset = linger == Some(Duration::ZERO) || unread > 0;
            let link = &mut self.links[conn];
            link.near = None;
            link.reset_by_worker = is_reset;
            // A reset may overtake what is on its way.
            if is_reset
                && link.rng.one_in(2)
                && let Some(far) = &mut link.far
            {
                let mut lost = [0; 4096];
                while matches!(far.read(&mut lost), Ok(1..)) {}
            }
            self.note(|| format!("worker closes {conn}{}", if is_reset { " by reset" } else { "" }));
        }
        // SAFETY: the worker's Close is its last word on this number.
        unsafe { libc::close(near) };
    }

    /// Whether the worker has closed its end.
    pub(crate) fn is_closed_by_worker(&self, conn: Conn) -> bool {
        self.links[conn].near.is_none()
    }

    /// Connections that there were.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Connections that the worker has not closed.
    pub(crate) fn open(&self) -> Vec<Conn> {
        (0..self.links.len()).filter(|conn| !self.is_closed_by_worker(*conn)).collect()
    }

    /// Connections of clients that nobody has accepted.
    pub(crate) fn backlog(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether a read of the far end would say something.
    pub(crate) fn is_readable(&self, conn: Conn) -> bool {
        let link = &self.links[conn];
        match &link.far {
            None => link.broken,
            Some(far) => ready(far.as_raw_fd(), libc::POLLIN | libc::POLLRDHUP) != 0,
        }
    }

    /// Whether nothing is under way, and the worker waits for something to come.
    pub(crate) fn is_idle(&self, conn: Conn) -> bool {
        let link = &self.links[conn];
        let is_silent =
            |near| waiting(near) == 0 && self.receiving.contains(&near) && !self.sending.contains(&near);
        link.near.is_some_and(is_silent) && !self.is_readable(conn)
    }

    /// Whether a write to the far end would do something.
    pub(crate) fn is_writable(&self, conn: Conn) -> bool {
        let link = &self.links[conn];
        link.far.as_ref().is_none_or(|far| ready(far.as_raw_fd(), libc::POLLOUT) != 0)
    }

    /// A script reads.
    pub(crate) fn read(&mut self, conn: Conn, most: usize) -> Got {
        let link = &mut self.links[conn];
        let Some(far) = &mut link.far else { return Got::Reset };
        let mut bytes = vec![0; most];
        match far.read(&mut bytes) {
            Ok(0) if link.reset_by_worker => Got::Reset,
            Ok(0) => Got::End,
            Ok(len) => {
                bytes.truncate(len);
                Got::Bytes(bytes)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Got::Nothing,
            Err(_) => Got::Reset,
        }
    }

    /// A script writes as much as there is room for.
    pub(crate) fn write(&mut self, conn: Conn, bytes: &[u8]) -> Put {
        let Some(far) = &mut self.links[conn].far else { return Put::Broken };
        match far.write(bytes) {
            Ok(len) => Put::Bytes(len),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Put::Full,
            Err(_) => Put::Broken,
        }
    }

    /// A script ends its side.
    pub(crate) fn end(&mut self, conn: Conn) {
        self.note(|| format!("far end of {conn} ends"));
        if let Some(far) = &self.links[conn].far {
            let _ = far.shutdown(Shutdown::Write);
        }
    }

    /// A script closes: its side ends, and what still comes is answered by a reset, at once or a little later.
    pub(crate) fn close(&mut self, conn: Conn) {
        if self.links[conn].far.is_none() || self.links[conn].closing.is_some() {
            return;
        }
        self.end(conn);
        let delay = Duration::from_millis(self.links[conn].rng.below(40) as u64);
        self.links[conn].closing = Some(self.now + delay);
    }

    /// A script resets.
    pub(crate) fn reset(&mut self, conn: Conn) {
        self.note(|| format!("far end of {conn} resets"));
        let link = &mut self.links[conn];
        if let (Some(far), Some(near)) = (&link.far, link.near) {
            // Whoever closes a socket with bytes unread has the other side find a reset.
            let _ = far.set_nonblocking(true);
            if far_is_deaf(near) {
                // The worker has ended its side, so nothing can be unread: another socket stands in for it.
                replace_by_reset(near);
            }
        }
        link.far = None;
        link.closing = None;
    }

    /// Goes on with what closes; when there is more to do.
    pub(super) fn settle(&mut self) -> Option<Duration> {
        let mut next = None;
        for conn in 0..self.links.len() {
            let Some(until) = self.links[conn].closing else { continue };
            if self.links[conn].near.is_none() {
                self.links[conn].far = None;
                self.links[conn].closing = None;
            } else if until <= self.now {
                let answers = self.links[conn].far.as_ref().is_some_and(|far| waiting(far.as_raw_fd()) > 0);
                if answers {
                    self.reset(conn);
                }
            } else {
                next = Some(next.map_or(until, |next: Duration| next.min(until)));
            }
        }
        next
    }

    /// The listening queue, by its descriptor.
    pub(super) fn accept(&mut self) -> Option<RawFd> {
        let conn = self.arrivals.pop_front()?;
        self.note(|| format!("accepted {conn}"));
        self.links[conn].near
    }

    /// Closes every far end.
    pub(super) fn clear(&mut self) {
        self.links.iter_mut().for_each(|link| link.far = None);
        // Those that nobody accepted.
        for conn in std::mem::take(&mut self.arrivals) {
            if let Some(near) = self.links[conn].near.take() {
                self.by_near.remove(&near);
                // SAFETY: never given to the worker.
                unsafe { libc::close(near) };
            }
        }
    }
}

/// Sends a byte to the far end, for it to be unread there; false: it cannot be.
fn far_is_deaf(near: RawFd) -> bool {
    // SAFETY: one byte of our own, to the worker's socket.
    let sent =
        unsafe { libc::send(near, [0_u8].as_ptr().cast(), 1, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    sent < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPIPE)
}

fn replace_by_reset(near: RawFd) {
    let (mut other, far) = UnixStream::pair().expect("descriptors for a connection");
    other.set_nonblocking(true).expect("a flag of a socket");
    let _ = other.write(&[0]);
    drop(far);
    // SAFETY: both are open; the number stays the worker's.
    unsafe { libc::dup3(other.as_raw_fd(), near, libc::O_CLOEXEC) };
}

/// A number that somebody else closes.
struct Borrowed(RawFd);

impl std::os::fd::AsFd for Borrowed {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: used while the number is open.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) }
    }
}

/// Bytes that wait to be read.
fn waiting(fd: RawFd) -> i32 {
    let mut len = 0;
    // SAFETY: writes one integer.
    unsafe { libc::ioctl(fd, libc::FIONREAD, &mut len) };
    len
}

/// Which of `events` hold now, with errors.
pub(super) fn ready(fd: RawFd, events: i16) -> i16 {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one entry, as said.
    unsafe { libc::poll(&mut poll, 1, 0) };
    poll.revents
}

/// A socket that nobody connects to, for who wants one to listen on.
pub(crate) fn listening() -> OwnedFd {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").into()
}
