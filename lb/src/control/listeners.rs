//! Binds every listener's group: per address, one SO_REUSEPORT socket for each worker.

use std::{fmt, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    admin::socket::{check_free, outlive_predecessor},
    config::{BindRange, Config},
    model::ListenerId,
    steering::parking,
};

/// Connections that may wait for an accept, per socket; the kernel clips it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// The sockets of one address, by worker.
#[derive(Debug)]
pub(super) struct Group {
    /// Whose address.
    pub(super) listener: ListenerId,
    /// Bound address, its port never 0.
    pub(super) address: SocketAddr,
    /// Listening, non-blocking; the n-th belongs to worker n.
    pub(super) sockets: Vec<OwnedFd>,
    /// What `lb_lookup` gives to these sockets; none where they are bound to what they serve.
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

/// Binds all groups, or none.
///
/// # Errors
/// The first address that cannot be had, with the call, the errno and the likely cause.
pub(super) fn bind(config: &Config, workers: usize) -> Result<Vec<Group>, BindError> {
    let mut groups = Vec::new();
    // As a snapshot numbers them: by name.
    for ((name, listener), id) in config.listeners.iter().zip((0..).map(ListenerId)) {
        let own = listener.bind.iter().map(|&address| (address, Vec::new()));
        for (address, ranges) in own.chain(parked(&listener.ranges)) {
            let group = bind_group(id, address, workers).map_err(|(call, source)| BindError {
                listener: name.clone(),
                address,
                call,
                source,
            })?;
            groups.push(Group { ranges, ..group });
        }
    }
    Ok(groups)
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

/// The same sockets under other descriptors.
///
/// # Errors
/// Those of dup(2).
pub(super) fn copies(groups: &[Group]) -> io::Result<Vec<Group>> {
    let copy = |group: &Group| {
        let sockets = group.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(Group { sockets, ranges: group.ranges.clone(), ..*group })
    };
    groups.iter().map(copy).collect()
}

type Failed = (&'static str, io::Error);

fn bind_group(listener: ListenerId, mut address: SocketAddr, workers: usize) -> Result<Group, Failed> {
    // Another daemon of the same user could join our group and take half of the connections; it may not.
    outlive_predecessor(|| check_free(address)).map_err(|source| ("bind", source))?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = bind_one(address)?;
        if address.port() == 0 {
            let bound = socket.local_addr().map_err(|source| ("getsockname", source))?;
            address = bound.as_socket().unwrap_or(address);
        }
        sockets.push(socket.into());
    }
    Ok(Group { listener, address, sockets, ranges: Vec::new() })
}

fn bind_one(address: SocketAddr) -> Result<Socket, Failed> {
    let named = |call: &'static str| move |source: io::Error| (call, source);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(named("socket"))?;
    socket.set_reuse_port(true).map_err(named("setsockopt SO_REUSEPORT"))?;
    socket.set_reuse_address(true).map_err(named("setsockopt SO_REUSEADDR"))?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two addresses, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(true).map_err(named("setsockopt IPV6_V6ONLY"))?;
    }
    socket.bind(&address.into()).map_err(named("bind"))?;
    socket.listen(BACKLOG).map_err(named("listen"))?;
    Ok(socket)
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listener, address, call, source } = self;
        write!(f, "listener {listener}: {call} {address}: {source}")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    ": another process listens there (`ss -ltnp 'sport = :{}'` says which)",
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

    fn config(bind: &[&str]) -> Config {
        let mut config = (*fixture::view().config).clone();
        let Some(web) = config.listeners.get_mut("web") else { panic!("no listener") };
        web.bind = bind.iter().map(|address| address.parse().unwrap()).collect();
        config
    }

    #[test]
    fn listeners_have_the_numbers_that_a_snapshot_gives_them() {
        let mut config = config(&["127.0.0.1:0"]);
        let Some(web) = config.listeners.get("web").cloned() else { panic!("no listener") };
        config.listeners.extend(["zoo", "a", "m"].map(|name| (name.into(), web.clone())));
        let ids = &mut crate::config::BackendIds::new();
        let snapshot = crate::config::Snapshot::build(&config, crate::model::Generation(1), ids).unwrap();
        for (group, listener) in bind(&config, 1).unwrap().iter().zip(&snapshot.listeners) {
            assert_eq!(group.listener, listener.id);
        }
        let names: Vec<_> = snapshot.listeners.iter().map(|listener| &*listener.name).collect();
        assert_eq!(names, ["a", "m", "web", "zoo"]);
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
