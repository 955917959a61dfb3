//! Datagrams by the batch: recvmmsg(2), with the address that was asked and runs of equal size as the kernel joined them
//! (UDP_GRO), and sendmsg(2) with both (UDP_SEGMENT).
//!
//! Source: udp(7), ip(7), ipv6(7); cmsg(3).
#![expect(unsafe_code, reason = "message headers are pointers; each block names its invariant")]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
    ptr,
};

/// Messages of one batch.
pub const BATCH: usize = 16;
/// Room for one message: the longest datagram, and the longest run that the kernel joins.
const MESSAGE_BYTES: usize = 64 << 10;
/// Room for control messages of one message: addresses and a size are less.
const CONTROL_BYTES: usize = 128;
/// Most datagrams of one send (UDP_MAX_SEGMENTS, include/linux/udp.h, Linux 6.1).
const SEGMENTS_MAX: usize = 64;
/// Longest payload of one send, IPv4's and UDP's headers taken off.
const SEND_BYTES_MAX: usize = 65_507;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Room for a batch, made once.
pub struct Batch {
    room: Box<[u8]>,
    names: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    received: Vec<Received>,
}

#[derive(Clone, Copy)]
struct Received {
    from: SocketAddr,
    to: Option<IpAddr>,
    len: usize,
    segment: usize,
}

/// Datagrams of one sender that came together.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams<'a> {
    /// Who sent them.
    pub from: SocketAddr,
    /// The address of ours that they were sent to, where the socket tells.
    pub to: Option<IpAddr>,
    /// All of them, one behind the other.
    pub bytes: &'a [u8],
    /// Length of each, but that the last may be shorter; at least 1.
    pub segment: usize,
}

impl Datagrams<'_> {
    /// How many there are; an empty one is one, too.
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.segment).max(1)
    }
}

impl Batch {
    /// Room that costs memory only once it is used.
    pub fn new() -> Self {
        // SAFETY: all zeroes are a valid (unspecified) address.
        let name = unsafe { MaybeUninit::<libc::sockaddr_storage>::zeroed().assume_init() };
        Self {
            room: vec![0; BATCH * MESSAGE_BYTES].into(),
            names: Box::new([name; BATCH]),
            controls: Box::new([Control([0; CONTROL_BYTES]); BATCH]),
            received: Vec::with_capacity(BATCH),
        }
    }

    /// What the last [`Batch::receive`] got.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagrams<'_>> {
        self.received.iter().zip(self.room.chunks(MESSAGE_BYTES)).filter_map(|(received, room)| {
            let Received { from, to, len, segment } = *received;
            Some(Datagrams { from, to, bytes: room.get(..len)?, segment })
        })
    }

    /// Receives what waits at the socket, at most a batch; never waits for more. How many messages came.
    ///
    /// # Errors
    /// `WouldBlock`: nothing waits. ECONNREFUSED, EHOSTUNREACH and the like on a connected socket: an earlier datagram
    /// came to nobody.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.received.clear();
        let mut places = [const { MaybeUninit::<libc::iovec>::zeroed() }; BATCH];
        // SAFETY: all zeroes are a valid header: null pointers with lengths of zero.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        let rooms = self.room.chunks_mut(MESSAGE_BYTES);
        let parts = rooms.zip(self.names.iter_mut()).zip(self.controls.iter_mut()).zip(&mut places);
        for (header, (((room, name), control), place)) in headers.iter_mut().zip(parts) {
            let place = place.write(libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() });
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = place;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: each of the BATCH headers points to a name, a place and a control buffer of the lengths it says; all of
        // them outlive the call, and nobody else has them.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (header, name) in headers.iter().take(count).zip(self.names.iter()) {
            let len = (header.msg_len as usize).min(MESSAGE_BYTES);
            let (to, segment) = told(&header.msg_hdr);
            let segment = segment.filter(|segment| *segment > 0).unwrap_or(len).max(1);
            // A sender without an address of a family that we know cannot be answered.
            let from = address(name).unwrap_or_else(|| SocketAddr::from(([0; 4], 0)));
            self.received.push(Received { from, to, len, segment });
        }
        Ok(count)
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} messages)", self.received.len())
    }
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let name = ptr::from_ref(name);
    // SAFETY: a storage is as large and as aligned as any address, and its family says which it holds.
    unsafe {
        match i32::from((*name).ss_family) {
            libc::AF_INET => {
                let v4 = &*name.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*name.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// The address that was asked, and the length of each datagram, as control messages say.
fn told(header: &libc::msghdr) -> (Option<IpAddr>, Option<usize>) {
    let (mut to, mut segment) = (None, None);
    // SAFETY: the kernel has filled the control buffer up to `msg_controllen`, and CMSG_* stay inside; what is read has the
    // length that its kind has, or more.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    to = Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    segment = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(header, at);
        }
    }
    (to, segment)
}

/// Where datagrams go that are sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// Their receiver; `None`: the peer of a connected socket.
    pub to: Option<SocketAddr>,
    /// Our address that they leave from; `None`: the socket's, or the kernel's choice.
    pub from: Option<IpAddr>,
}

/// What became of datagrams that were to be sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many the kernel took.
    pub count: usize,
    /// Why it did not take the rest.
    pub error: Option<io::Error>,
}

/// Sends datagrams, as runs where the kernel splits them, else one by one. Never waits.
pub fn send(socket: impl AsFd, course: Course, datagrams: &Datagrams<'_>) -> Sent {
    let Datagrams { bytes, segment, .. } = *datagrams;
    let run = (segment * SEGMENTS_MAX.min(SEND_BYTES_MAX / segment.min(SEND_BYTES_MAX))).max(segment);
    let mut sent = Sent::default();
    let mut rest = bytes;
    loop {
        let (part, behind) = rest.split_at(run.min(rest.len()));
        let count = part.len().div_ceil(segment).max(1);
        match send_run(&socket, course, part, segment) {
            Ok(()) => sent.count += count,
            // The way there splits nothing, or takes only smaller ones at once.
            Err(error) if count > 1 && is_unsplit(&error) => {
                for one in part.chunks(segment) {
                    match send_run(&socket, course, one, segment) {
                        Ok(()) => sent.count += 1,
                        Err(error) => sent.error = Some(error),
                    }
                }
            }
            Err(error) => {
                sent.error = Some(error);
                return sent;
            }
        }
        rest = behind;
        if rest.is_empty() {
            return sent;
        }
    }
}

fn is_unsplit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::ENOPROTOOPT))
}

fn send_run(socket: impl AsFd, course: Course, bytes: &[u8], segment: usize) -> io::Result<()> {
    let name = course.to.map(socket2::SockAddr::from);
    let mut place = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: all zeroes are a valid header.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    if let Some(name) = &name {
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = name.len();
    }
    header.msg_iov = &raw mut place;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES as _;
    let mut used = 0;
    match course.from {
        Some(IpAddr::V4(ip)) => {
            let spec = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: spec,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += put(&header, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let address = libc::in6_addr { s6_addr: ip.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            used += put(&header, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if bytes.len() > segment {
        used += put(&header, used, libc::SOL_UDP, libc::UDP_SEGMENT, segment as u16);
    }
    header.msg_controllen = used as _;
    if used == 0 {
        header.msg_control = ptr::null_mut();
    }
    // SAFETY: the header points to a name, a place and control messages that live until the call returns; the kernel only
    // reads them.
    let sent = unsafe {
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes a control message `at` bytes into the buffer of `header`; the bytes it takes.
fn put<T>(header: &libc::msghdr, at: usize, level: i32, kind: i32, value: T) -> usize {
    // SAFETY: pure arithmetic on a length.
    let (space, len) = unsafe {
        let len = size_of::<T>() as u32;
        (libc::CMSG_SPACE(len) as usize, libc::CMSG_LEN(len))
    };
    assert!(at + space <= CONTROL_BYTES, "there is room for what we tell");
    // SAFETY: the buffer has CONTROL_BYTES, of which `space` from `at` on are free, aligned to eight bytes: a space is a
    // multiple of that, and the buffer begins so.
    unsafe {
        let message = header.msg_control.cast::<u8>().add(at).cast::<libc::cmsghdr>();
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = len as _;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
    }
    space
}

/// Has the kernel join runs of datagrams, where it can, and, with `tells_address`, tell the address that was asked.
///
/// # Errors
/// Those of setsockopt(2), save for what the kernel does not know.
pub fn prepare(socket: impl AsFd, like: IpAddr, tells_address: bool) -> io::Result<()> {
    let set = |level: i32, name: i32| {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int, of which pointer and length are given.
        let result = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                level,
                name,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // Only a gain.
    let _ = set(libc::SOL_UDP, libc::UDP_GRO);
    match like {
        _ if !tells_address => Ok(()),
        IpAddr::V4(_) => set(libc::IPPROTO_IP, libc::IP_PKTINFO),
        IpAddr::V6(_) => set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn all(batch: &Batch) -> Vec<(SocketAddr, Option<IpAddr>, Vec<Vec<u8>>)> {
        let split = |datagrams: Datagrams<'_>| match datagrams.bytes {
            [] => vec![Vec::new()],
            bytes => bytes.chunks(datagrams.segment).map(<[u8]>::to_vec).collect(),
        };
        batch.datagrams().map(|it| (it.from, it.to, split(it))).collect()
    }

    #[test]
    fn batches_come_with_the_address_that_was_asked() {
        for (any, asked) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
            let asked: IpAddr = asked.parse().unwrap();
            let server = UdpSocket::bind(any).unwrap();
            server.set_nonblocking(true).unwrap();
            prepare(&server, asked, true).unwrap();
            let client = UdpSocket::bind(SocketAddr::new(asked, 0)).unwrap();
            let mut batch = Batch::new();
            assert_eq!(batch.receive(&server).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let server_address = SocketAddr::new(asked, server.local_addr().unwrap().port());
            for text in [&b"one"[..], b"", b"three"] {
                client.send_to(text, server_address).unwrap();
            }
            assert_eq!(batch.receive(&server).unwrap(), 3);
            let from = client.local_addr().unwrap();
            let expected = [&b"one"[..], b"", b"three"].map(|text| (from, Some(asked), vec![text.to_vec()]));
            assert_eq!(all(&batch), expected);

            // Back from the address that was asked, whatever the kernel would have chosen.
            let course = Course { to: Some(from), from: Some(asked) };
            let answer = Datagrams { from, to: None, bytes: b"aabbc", segment: 2 };
            let sent = send(&server, course, &answer);
            assert!(sent.count == 3 && sent.error.is_none(), "{sent:?}");
            for text in [&b"aa"[..], b"bb", b"c"] {
                let mut buffer = [0; 9];
                let (len, answered) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], answered), (text, server_address));
            }
        }
    }

    #[test]
    fn long_runs_are_sent_in_parts_and_none_is_lost() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let from = sender.local_addr().unwrap();
        for (len, segment) in [(100, 1), (60_000, 1000), (65_507, 65_507), (40_000, 16_000), (7, 9), (0, 1)] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let datagrams = Datagrams { from, to: None, bytes: &bytes, segment };
            let sent = send(&sender, Course::default(), &datagrams);
            assert!(sent.count == datagrams.count() && sent.error.is_none(), "{len} by {segment}: {sent:?}");
            let (mut batch, mut received) = (Batch::new(), Vec::new());
            while batch.receive(&receiver).is_ok() {
                received.extend(all(&batch).into_iter().flat_map(|(.., datagrams)| datagrams));
            }
            let expected: Vec<Vec<u8>> =
                if len == 0 { vec![Vec::new()] } else { bytes.chunks(segment).map(<[u8]>::to_vec).collect() };
            assert!(received == expected, "{len} by {segment}: {} came", received.len());
        }
    }

    #[test]
    fn a_run_comes_as_the_kernel_joined_it() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        prepare(&receiver, Ipv4Addr::LOCALHOST.into(), true).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (from, to) = (sender.local_addr().unwrap(), receiver.local_addr().unwrap());
        let bytes: Vec<u8> = (0..12_345).map(|at| (at / 1000) as u8).collect();
        let course = Course { to: Some(to), from: None };
        let sent = send(&sender, course, &Datagrams { from, to: None, bytes: &bytes, segment: 1000 });
        assert!(sent.count == 13 && sent.error.is_none(), "{sent:?}");
        let mut batch = Batch::new();
        // Loopback splits a run only for a socket that does not take it whole.
        assert_eq!(batch.receive(&receiver).unwrap(), 1);
        let run: Vec<_> = batch.datagrams().collect();
        assert_eq!((run[0].segment, run[0].count(), run[0].to), (1000, 13, Some(to.ip())));
        assert!(run[0].bytes == bytes);
    }

    #[test]
    fn a_peer_that_is_not_there_is_an_error_later() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        socket.connect(gone).unwrap();
        socket.set_nonblocking(true).unwrap();
        let one = Datagrams { from: gone, to: None, bytes: b"x", segment: 1 };
        assert!(send(&socket, Course::default(), &one).error.is_none());
        let error = Batch::new().receive(&socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
