//! Binds every listener's group: per address, one SO_REUSEPORT socket for each worker.

use std::{fmt, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    admin::socket::{check_free, outlive_predecessor},
    config::{self, BindRange, Config, ListenerIds},
    model::{GroupId, ListenerId},
    steering::parking,
    upgrade::{InheritedGroup, store::Stored},
};

/// Connections that may wait for an accept, per socket; the kernel clips it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// An address that a config has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whose.
    pub(super) listener: ListenerId,
    /// Its name.
    pub(super) name: Arc<str>,
    /// As it is written; of ranges, where their sockets are parked.
    pub(super) address: SocketAddr,
    /// For datagrams.
    pub(super) is_udp: bool,
    /// What `lb_lookup` gives to these sockets; none where they are bound to what they serve.
    pub(super) ranges: Vec<BindRange>,
}

impl Wanted {
    /// As systemd's store knows it; with its ranges as text.
    pub(super) fn stored<'a>(&self, ranges: &'a [String]) -> Stored<'a> {
        Stored { address: self.address, is_udp: self.is_udp, ranges }
    }

    /// Its ranges as text, as they are handed over.
    pub(super) fn spelled_ranges(&self) -> Vec<String> {
        self.ranges.iter().map(ToString::to_string).collect()
    }
}

/// The sockets of one address, by worker.
#[derive(Debug)]
pub(super) struct Group {
    /// Which.
    pub(super) id: GroupId,
    /// Whose address.
    pub(super) listener: ListenerId,
    /// Bound address, its port never 0.
    pub(super) address: SocketAddr,
    /// For datagrams.
    pub(super) is_udp: bool,
    /// Which of all sockets at this address is the first of these.
    pub(super) first: usize,
    /// Bound, listening where that is a word for them, non-blocking. Of w workers, the n-th of all at this address belongs to
    /// worker n modulo w: where workers have gone, others have more than one.
    pub(super) sockets: Vec<OwnedFd>,
    /// As [`Wanted::ranges`].
    pub(super) ranges: Vec<BindRange>,
}

/// An address that cannot be had.
#[derive(Debug)]
pub(super) struct BindError {
    listener: Arc<str>,
    address: SocketAddr,
    call: &'static str,
    source: io::Error,
}

/// Every address of a config, with the numbers that its listeners have.
pub(super) fn wanted(config: &Config, ids: &ListenerIds) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (name, listener) in &config.listeners {
        let Some(id) = ids.id(name) else { continue };
        let own = listener.bind.iter().map(|&address| (address, Vec::new()));
        wanted.extend(own.chain(parked(&listener.ranges)).map(|(address, ranges)| Wanted {
            listener: id,
            name: name.clone(),
            address,
            is_udp: listener.protocol == config::Protocol::Udp,
            ranges,
        }));
    }
    wanted
}

/// Makes the group of one address of sockets that another process bound, with more where there are more workers. None is
/// left to the other process alone: who waits there waits for us.
///
/// # Errors
/// More are wanted and cannot be had.
pub(super) fn adopt(
    wanted: &Wanted,
    id: GroupId,
    workers: usize,
    inherited: InheritedGroup,
) -> Result<Group, BindError> {
    let named =
        |(call, source)| BindError { listener: wanted.name.clone(), address: inherited.bound, call, source };
    let mut sockets = inherited.sockets;
    while sockets.len() < workers {
        sockets.push(bind_one(inherited.bound, wanted.is_udp).map_err(named)?.into());
    }
    let (listener, is_udp, ranges) = (wanted.listener, wanted.is_udp, wanted.ranges.clone());
    Ok(Group { id, listener, address: inherited.bound, is_udp, first: 0, sockets, ranges })
}

/// Binds further sockets at an address of which there are `first` already, beside those. Nobody is given to them before
/// they [listen].
///
/// # Errors
/// They cannot be had.
pub(super) fn widen(
    wanted: &Wanted,
    id: GroupId,
    address: SocketAddr,
    first: usize,
    workers: usize,
) -> Result<Group, BindError> {
    let named = |(call, source)| BindError { listener: wanted.name.clone(), address, call, source };
    let bind = |_| bind_silent(address, wanted.is_udp).map(OwnedFd::from);
    let sockets = (first..workers).map(bind).collect::<Result<_, _>>().map_err(named)?;
    let (listener, is_udp, ranges) = (wanted.listener, wanted.is_udp, wanted.ranges.clone());
    Ok(Group { id, listener, address, is_udp, first, sockets, ranges })
}

/// Binds the group of one address. `is_ours`: another address of this process overlaps with it, so that nobody else can.
///
/// # Errors
/// The address cannot be had: the call, the errno and the likely cause.
pub(super) fn bind(wanted: &Wanted, id: GroupId, workers: usize, is_ours: bool) -> Result<Group, BindError> {
    let named =
        |(call, source)| BindError { listener: wanted.name.clone(), address: wanted.address, call, source };
    // Another daemon of the same user could join our group and take half of the connections; it may not.
    if !is_ours {
        outlive_predecessor(|| check_free(wanted.address, wanted.is_udp))
            .map_err(|source| named(("bind", source)))?;
    }
    let (address, sockets) = bind_all(wanted.address, workers, wanted.is_udp).map_err(named)?;
    let (listener, is_udp, ranges) = (wanted.listener, wanted.is_udp, wanted.ranges.clone());
    Ok(Group { id, listener, address, is_udp, first: 0, sockets, ranges })
}

/// A group for the ranges of each family, at a port of the kernel's choice.
fn parked(ranges: &[BindRange]) -> impl Iterator<Item = (SocketAddr, Vec<BindRange>)> {
    let (v4, v6): (Vec<BindRange>, Vec<_>) =
        ranges.iter().copied().partition(|range| range.net.addr().is_ipv4());
    [v4, v6].into_iter().filter_map(|ranges| {
        let like = ranges.first()?.net.addr();
        Some((SocketAddr::new(parking(like), 0), ranges))
    })
}

/// The same sockets under other descriptors, for systemd's store.
///
/// # Errors
/// Those of dup(2).
pub(super) fn copies_of_all(groups: &[Group]) -> io::Result<Vec<Group>> {
    groups.iter().map(copy).collect()
}

fn copy(group: &Group) -> io::Result<Group> {
    let sockets = group.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
    Ok(Group { sockets, ranges: group.ranges.clone(), ..*group })
}

/// The same sockets under other descriptors; none of those for datagrams, whose clients stay with their worker by the
/// kernel's own hash.
///
/// # Errors
/// Those of dup(2).
pub(super) fn copies(groups: &[Group]) -> io::Result<Vec<Group>> {
    groups.iter().filter(|group| !group.is_udp).map(copy).collect()
}

type Failed = (&'static str, io::Error);

fn bind_all(
    mut address: SocketAddr,
    workers: usize,
    is_udp: bool,
) -> Result<(SocketAddr, Vec<OwnedFd>), Failed> {
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = bind_one(address, is_udp)?;
        if address.port() == 0 {
            let bound = socket.local_addr().map_err(|source| ("getsockname", source))?;
            address = bound.as_socket().unwrap_or(address);
        }
        sockets.push(socket.into());
    }
    Ok((address, sockets))
}

/// Has sockets that were bound take their part of who connects.
///
/// # Errors
/// Those of listen(2).
pub(super) fn listen(group: &Group) -> io::Result<()> {
    group.sockets.iter().try_for_each(|socket| SockRef::from(socket).listen(BACKLOG))
}

fn bind_one(address: SocketAddr, is_udp: bool) -> Result<Socket, Failed> {
    let socket = bind_silent(address, is_udp)?;
    if !is_udp {
        socket.listen(BACKLOG).map_err(|source| ("listen", source))?;
    }
    Ok(socket)
}

/// A socket for connections that nobody is given to yet.
fn bind_silent(address: SocketAddr, is_udp: bool) -> Result<Socket, Failed> {
    let named = |call: &'static str| move |source: io::Error| (call, source);
    let (kind, protocol) = if is_udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))
        .map_err(named("socket"))?;
    socket.set_reuse_port(true).map_err(named("setsockopt SO_REUSEPORT"))?;
    if !is_udp {
        // For datagrams it would let anybody of any user take the address over.
        socket.set_reuse_address(true).map_err(named("setsockopt SO_REUSEADDR"))?;
    }
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two addresses, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(true).map_err(named("setsockopt IPV6_V6ONLY"))?;
    }
    socket.bind(&address.into()).map_err(named("bind"))?;
    Ok(socket)
}

impl BindError {
    /// Path of the key that wants it.
    pub(super) fn key(&self) -> String {
        format!("listener.{}.bind", self.listener)
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listener, address, call, source } = self;
        write!(f, "listener {listener}: {call} {address}: {source}")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    ": another process listens there (`ss -ltunp 'sport = :{}'` says which)",
                    address.port()
                )
            }
            io::ErrorKind::AddrNotAvailable => write!(f, ": no interface of this host has that address"),
            io::ErrorKind::PermissionDenied => {
                write!(f, ": ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::admin::fixture;

    /// All groups of a config.
    fn bind(config: &Config, workers: usize) -> Result<Vec<Group>, BindError> {
        let mut ids = ListenerIds::default();
        ids.assign(config);
        wanted(config, &ids).iter().map(|wanted| super::bind(wanted, GroupId(0), workers, false)).collect()
    }

    fn config(bind: &[&str]) -> Config {
        let mut config = (*fixture::view().config).clone();
        let Some(web) = config.listeners.get_mut("web") else { panic!("no listener") };
        web.bind = bind.iter().map(|address| address.parse().unwrap()).collect();
        config
    }

    #[test]
    fn every_worker_has_a_socket_of_every_group() {
        let groups = bind(&config(&["127.0.0.1:0", "[::1]:0"]), 3).unwrap();
        assert_eq!(groups.len(), 2);
        for group in groups {
            assert_ne!(group.address.port(), 0);
            assert_eq!(group.sockets.len(), 3);
            for socket in group.sockets {
                let listener = TcpListener::from(socket);
                assert_eq!(listener.local_addr().unwrap(), group.address);
                assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            }
            assert!(TcpStream::connect(group.address).is_err(), "closed with the group");
        }
    }

    #[test]
    fn who_connects_is_given_to_further_sockets_once_they_listen() {
        let first = &bind(&config(&["127.0.0.1:0"]), 1).unwrap()[0];
        let mut ids = ListenerIds::default();
        let config = config(&["127.0.0.1:0"]);
        ids.assign(&config);
        let wanted = &wanted(&config, &ids)[0];
        let more = widen(wanted, GroupId(0), first.address, 1, 3).unwrap();
        assert_eq!((more.first, more.sockets.len(), more.address), (1, 2, first.address));
        let accept = |socket: &OwnedFd| TcpListener::from(socket.try_clone().unwrap()).accept().is_ok();
        let connect = || (0..64).map(|_| TcpStream::connect(first.address).unwrap()).collect::<Vec<_>>();
        let early = connect();
        assert!((0..64).all(|_| accept(&first.sockets[0])), "somebody was given to who does not listen");
        drop(early);
        listen(&more).unwrap();
        let _late = connect();
        assert!(more.sockets.iter().all(accept), "nobody is given to who listens");
    }

    #[test]
    fn a_taken_address_names_itself_and_the_cause() {
        let taken = bind(&config(&["127.0.0.1:0"]), 1).unwrap();
        let address = taken[0].address.to_string();
        let error = bind(&config(&[&address]), 2).unwrap_err().to_string();
        for part in ["listener web", "bind", &*address, "os error 98", "another process listens there"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = bind(&config(&["192.0.2.1:80"]), 1).unwrap_err().to_string();
        assert!(error.contains("no interface of this host"), "{error}");
    }
}
