//! systemd's store of descriptors: listening sockets outlive a process that dies, and nobody is refused until the next
//! one listens.
//!
//! Source: sd_notify(3), FDSTORE=1; sd_listen_fds(3).

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsStr,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::SocketAddr,
    ops::Range,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr as UnixAddr, UnixDatagram},
        },
    },
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::inheritance::{Inheritance, InheritedGroup};
use crate::{config::Digest, sys};

/// Begins the name of each of ours.
const PREFIX: &str = "lb-";

/// The address of sockets, as the config has it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// As the config has it; of ranges, where their sockets are parked.
    pub address: SocketAddr,
    /// For datagrams.
    pub is_udp: bool,
    /// What `lb_lookup` gives to them, as text.
    pub ranges: &'a [String],
}

impl Stored<'_> {
    /// The name of worker n's socket. A name has no colons, and at most 255 bytes.
    fn name(&self, worker: usize) -> String {
        let Self { address, is_udp, ranges } = self;
        let digest = Digest::of(format!("{address} {is_udp} {ranges:?}").as_bytes()).to_string();
        let short: String = digest.chars().take(32).collect();
        format!("{PREFIX}{short}-{worker}")
    }
}

/// What the store held of ours when this process began, by name. To be asked once.
#[derive(Debug, Default)]
pub struct Store(BTreeMap<String, OwnedFd>);

impl Store {
    /// Of this process's environment. What is not ours there is closed.
    pub fn of_this_start() -> Self {
        let (ours, others): (Vec<_>, Vec<_>) =
            sys::listen_fds().into_iter().partition(|(name, _)| name.starts_with(PREFIX));
        if !others.is_empty() {
            tracing::warn!(count = others.len(), "descriptors of systemd that are not known here are closed");
        }
        Self(ours.into_iter().collect())
    }

    /// The sockets of one address, of so many workers at most.
    fn take(&mut self, wanted: Stored<'_>, workers: usize) -> Option<InheritedGroup> {
        let mut sockets: Vec<OwnedFd> = Vec::new();
        while sockets.len() < workers
            && let Some(socket) = self.0.remove(&wanted.name(sockets.len()))
        {
            sockets.push(socket);
        }
        let bound = sockets.iter().map(|socket| is_bound(socket, wanted)).collect::<Option<Vec<_>>>()?;
        let bound = *bound.first().filter(|first| bound.iter().all(|other| other == *first))?;
        let Stored { address, is_udp, ranges } = wanted;
        Some(InheritedGroup { address, bound, is_udp, ranges: ranges.to_vec(), sockets })
    }

    /// Takes out what a config with so many workers has a use for; the rest is closed here, and taken out of the store.
    pub fn inherit<'a>(
        mut self,
        wanted: impl Iterator<Item = Stored<'a>>,
        workers: usize,
        inheritance: &mut Inheritance,
    ) {
        for group in wanted.filter_map(|wanted| self.take(wanted, workers)) {
            // The program of the process that died holds maps, and these the sockets: one is in one map only.
            if let Some(Err(error)) = group.sockets.first().map(sys::reuseport::detach_program) {
                tracing::warn!(%error, address = %group.address, "the program of an earlier process stays");
            }
            inheritance.groups.push(group);
        }
        self.0.keys().for_each(|name| remove(name));
    }
}

/// What a socket is bound to, if it can be the one that is wanted.
fn is_bound(socket: &OwnedFd, wanted: Stored<'_>) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(socket);
    let bound = socket.local_addr().ok()?.as_socket()?;
    let kind = if wanted.is_udp { socket2::Type::DGRAM } else { socket2::Type::STREAM };
    let is_it = bound.ip() == wanted.address.ip() && [0, bound.port()].contains(&wanted.address.port());
    let listens = wanted.is_udp || socket.is_listener().ok()?;
    (is_it && listens && socket.r#type().ok()? == kind && socket.reuse_port().ok()?).then_some(bound)
}

/// What this process has had kept, by name.
static KEPT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn kept() -> MutexGuard<'static, BTreeSet<String>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has systemd keep sockets of an address, of which these begin with the `first`. One that it has already is kept once.
pub fn keep(wanted: Stored<'_>, first: usize, sockets: &[OwnedFd]) {
    for (worker, socket) in (first..).zip(sockets) {
        let name = wanted.name(worker);
        tell(&format!("FDSTORE=1\nFDNAME={name}\n"), Some(socket.as_fd()));
        kept().insert(name);
    }
}

/// Has systemd close all that this process has had kept: it ends in order, and who comes now is to be refused, not to
/// wait for nobody.
pub fn forget_all() {
    let all = std::mem::take(&mut *kept());
    all.iter().for_each(|name| remove(name));
}

/// Has systemd close those of these workers.
pub fn forget(wanted: Stored<'_>, workers: Range<usize>) {
    workers.for_each(|worker| remove(&wanted.name(worker)));
}

fn remove(name: &str) {
    kept().remove(name);
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None);
}

fn tell(words: &str, descriptor: Option<BorrowedFd<'_>>) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&path, words, descriptor) {
        tracing::warn!(%error, "systemd's store of descriptors");
    }
}

fn send(path: &OsStr, words: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match path.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&UnixAddr::from_abstract_name(name)?)?,
        _ => socket.connect(path)?,
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(&socket, &[IoSlice::new(words.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(address: &str) -> OwnedFd {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        let address: SocketAddr = address.parse().unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1).unwrap();
        socket.into()
    }

    fn stored(address: &str) -> Stored<'static> {
        Stored { address: address.parse().unwrap(), is_udp: false, ranges: &[] }
    }

    #[test]
    fn sockets_are_found_by_address_and_worker() {
        let first = group("127.0.0.1:0");
        let bound = socket2::SockRef::from(&first).local_addr().unwrap().as_socket().unwrap();
        let text = bound.to_string();
        let wanted = stored(&text);
        let store = Store(BTreeMap::from([
            (wanted.name(0), first),
            (wanted.name(1), group(&text)),
            (wanted.name(2), group(&text)),
            // Another address under this name, and one that nobody wants.
            (stored("127.0.0.1:1").name(0), group("127.0.0.1:0")),
            (stored("127.0.0.1:2").name(0), group("127.0.0.1:0")),
        ]));
        let mut inheritance = Inheritance::default();
        store.inherit(
            [wanted, stored("127.0.0.1:1"), stored("127.0.0.1:3")].into_iter(),
            2,
            &mut inheritance,
        );
        let groups = &inheritance.groups;
        assert_eq!((groups.len(), groups[0].bound, groups[0].sockets.len()), (1, bound, 2));
    }

    #[test]
    fn names_are_such_as_systemd_takes() {
        let ranges: Vec<String> = (0..99).map(|port| format!("2001:db8::/32 {port}-{port}")).collect();
        let name = Stored { ranges: &ranges, ..stored("127.0.0.1:1") }.name(255);
        assert!(name.len() < 255 && !name.contains(':'), "{name}");
        assert_ne!(stored("127.0.0.1:1").name(0), Stored { is_udp: true, ..stored("127.0.0.1:1") }.name(0));
    }
}
