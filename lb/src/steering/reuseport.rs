//! Which worker's socket takes a connection: fills the maps of `lb_steer` and hangs it on listener groups.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use aya::maps::MapError;
use lb_abi::{
    be::Be16,
    bounds::{CORES_MAX, STEER_LISTENERS_MAX, WORKERS_MAX},
    names,
    steer::{MODE_CORE, MODE_HASH, STEER_COOKIES, STEER_LOOKED_UP, STEER_RELIEVE, SteerEntry, SteerKey},
};
use rustix::io::Errno;

use super::{
    error::{Error, Result},
    maps::Maps,
    terms::mapped,
};
use crate::{config::Steer, model::WorkerId};

/// One bound address with the sockets of all workers: an SO_REUSEPORT group.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// What the sockets are bound to, with the real port.
    pub address: SocketAddr,
    /// 6 or 17.
    pub protocol: u8,
    /// Listening (or, for UDP, bound) sockets, with SO_REUSEPORT, by worker.
    pub sockets: &'a [(WorkerId, BorrowedFd<'a>)],
    /// How one is chosen.
    pub mode: SteerMode,
    /// Connections may go to another worker while their own lags.
    pub relieves: bool,
    /// `lb_lookup` names these sockets, too.
    pub is_looked_up: bool,
    /// `lb_cookie` may answer for them.
    pub takes_cookies: bool,
}

/// What [`Steer`] comes down to on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SteerMode {
    /// The worker of the core that took the packet.
    Core,
    /// The worker that the kernel's flow hash names.
    Hash,
}

/// A mode and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Choice {
    /// The mode.
    pub mode: SteerMode,
    /// For `lb show workers` and the log.
    pub reason: String,
}

/// What is known of the interfaces that carry a listener's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Core of every worker.
    pub worker_cores: Vec<usize>,
    /// Interfaces that can bring packets for the address.
    pub interfaces: Vec<InterfaceFacts>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Name.
    pub name: String,
    /// What stands behind it.
    pub device: Device,
}

/// What brings packets to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// No hardware: packets are taken on the core of whoever sent them (loopback, veth, bridge).
    Software,
    /// XDP spreads its packets over the workers' cores.
    Spread,
    /// Hardware or virtio, with the cores that its receive queues' interrupts go to.
    Queues(Vec<usize>),
}

/// Decides between core and hash.
///
/// Auto is core only where every worker's core owns a receive queue of every interface, or XDP does as if it did: a
/// worker whose core takes no packets would get no connection.
pub fn choose(steer: Steer, facts: &Facts) -> Choice {
    let hash = |reason: String| Choice { mode: SteerMode::Hash, reason };
    let core = |reason: String| Choice { mode: SteerMode::Core, reason };
    match steer {
        Steer::Core => return core("the listener says so".to_owned()),
        Steer::Hash => return hash("the listener says so".to_owned()),
        Steer::Auto => {}
    }
    if facts.interfaces.is_empty() {
        return hash("no interface carries the address now".to_owned());
    }
    for InterfaceFacts { name, device } in &facts.interfaces {
        match device {
            Device::Spread => {}
            Device::Software => {
                return hash(format!("{name} has no receive queues: packets arrive on their sender's core"));
            }
            Device::Queues(cores) => {
                if let Some(bare) = facts.worker_cores.iter().find(|core| !cores.contains(core)) {
                    return hash(format!(
                        "no receive queue of {name} belongs to core {bare}, where a worker runs"
                    ));
                }
            }
        }
    }
    let spread = facts.interfaces.iter().find(|interface| interface.device == Device::Spread);
    core(spread.map_or_else(
        || "every worker's core owns a receive queue".to_owned(),
        |interface| format!("XDP spreads the packets of {} over the workers' cores", interface.name),
    ))
}

/// Between two attempts to take a socket over from a map that goes, and how many.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
const BUSY_PAUSES: u32 = 100;

/// Groups by address, each with its index in the maps.
#[derive(Debug, Default)]
pub(super) struct Groups {
    indexes: BTreeMap<(SocketAddr, u8), u32>,
}

impl Groups {
    /// Takes over the indexes that an earlier process gave out.
    pub(super) fn adopt(maps: &Maps) -> Result<Self> {
        let mut indexes = BTreeMap::new();
        for entry in maps.steer_listeners.iter() {
            let (key, entry) = entry.map_err(Error::map(names::MAP_STEER_LISTENERS))?;
            let address = std::net::Ipv6Addr::from(key.address).to_canonical();
            indexes.insert((SocketAddr::new(address, key.port.host()), key.protocol), entry.listener);
        }
        Ok(Self { indexes })
    }

    /// Index of every group.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddr, u8, u32)> + '_ {
        self.indexes.iter().map(|(&(address, protocol), &index)| (address, protocol, index))
    }

    /// The place of a group's first socket.
    pub(super) fn place(&self, address: SocketAddr, protocol: u8) -> Option<u32> {
        self.indexes.get(&(unscoped(address), protocol)).map(|index| index * WORKERS_MAX)
    }

    /// Sockets first, then the entry that names them.
    pub(super) fn put(&mut self, maps: &mut Maps, group: &Group<'_>) -> Result<()> {
        let at = (unscoped(group.address), group.protocol);
        let index = match self.indexes.get(&at) {
            Some(&index) => index,
            None => self.free_index()?,
        };
        for (worker, socket) in group.sockets {
            let max = WORKERS_MAX as usize;
            if worker.index() >= max {
                return Err(Error::Bounds { what: "workers", is: worker.index() + 1, max });
            }
            let place = index * WORKERS_MAX + u32::from(worker.0);
            if group.is_looked_up {
                let set = maps.lookup_sockets.set(place, &socket.as_raw_fd(), 0);
                set.map_err(Error::map(names::MAP_LOOKUP_SOCKETS))?;
            } else {
                put_socket(maps, place, *socket)?;
            }
        }
        let entry = SteerEntry {
            listener: index,
            workers: group.sockets.len() as u32,
            mode: match group.mode {
                SteerMode::Core => MODE_CORE,
                SteerMode::Hash => MODE_HASH,
            },
            flags: if group.relieves { STEER_RELIEVE } else { 0 }
                | if group.is_looked_up { STEER_LOOKED_UP } else { 0 }
                | if group.takes_cookies { STEER_COOKIES } else { 0 },
        };
        maps.steer_listeners
            .insert(steer_key(at.0, at.1), entry, 0)
            .map_err(Error::map(names::MAP_STEER_LISTENERS))?;
        self.indexes.insert(at, index);
        Ok(())
    }

    /// Entry first, then the sockets; those that closed have left the map by themselves.
    pub(super) fn remove(&mut self, maps: &mut Maps, address: SocketAddr, protocol: u8) -> Result<()> {
        let address = unscoped(address);
        let Some(&index) = self.indexes.get(&(address, protocol)) else { return Ok(()) };
        maps.steer_listeners
            .remove(&steer_key(address, protocol))
            .or_else(ignore_absent)
            .map_err(Error::map(names::MAP_STEER_LISTENERS))?;
        self.indexes.remove(&(address, protocol));
        for worker in 0..WORKERS_MAX {
            maps.steer_sockets
                .clear_index(&(index * WORKERS_MAX + worker))
                .or_else(ignore_absent)
                .map_err(Error::map(names::MAP_STEER_SOCKETS))?;
        }
        Ok(())
    }

    /// Takes every socket out of its place; what names the places stays.
    pub(super) fn clear_sockets(&self, maps: &mut Maps) -> Result<()> {
        for place in self.indexes.values().flat_map(|index| index * WORKERS_MAX..(index + 1) * WORKERS_MAX) {
            maps.steer_sockets
                .clear_index(&place)
                .or_else(ignore_absent)
                .map_err(Error::map(names::MAP_STEER_SOCKETS))?;
        }
        Ok(())
    }

    fn free_index(&self) -> Result<u32> {
        let taken = |index: &u32| self.indexes.values().any(|other| other == index);
        let max = STEER_LISTENERS_MAX as usize;
        (0..STEER_LISTENERS_MAX).find(|index| !taken(index)).ok_or(Error::Bounds {
            what: "listener addresses",
            is: max + 1,
            max,
        })
    }
}

/// Writes which worker runs on which core; cores beyond the list have none.
pub(super) fn put_cores(maps: &mut Maps, workers: &[(usize, WorkerId)]) -> Result<()> {
    let by_core: BTreeMap<usize, WorkerId> = workers.iter().copied().collect();
    if let Some((&core, _)) = by_core.last_key_value().filter(|(core, _)| **core >= CORES_MAX as usize) {
        return Err(Error::Bounds { what: "cores", is: core + 1, max: CORES_MAX as usize });
    }
    for core in 0..CORES_MAX {
        let worker = by_core.get(&(core as usize)).map_or(0, |worker| u32::from(worker.0) + 1);
        maps.steer_cores.set(core, worker, 0).map_err(Error::map(names::MAP_STEER_CORES))?;
    }
    Ok(())
}

fn put_socket(maps: &mut Maps, index: u32, socket: BorrowedFd<'_>) -> Result<()> {
    let mut pauses = 0;
    loop {
        match try_put_socket(maps, index, socket) {
            // In the map of a process that has gone, which the kernel frees by and by.
            Err(MapError::SyscallError(error))
                if Errno::from_io_error(&error.io_error) == Some(Errno::BUSY) && pauses < BUSY_PAUSES =>
            {
                pauses += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            put => return put.map_err(Error::map(names::MAP_STEER_SOCKETS)),
        }
    }
}

fn try_put_socket(maps: &mut Maps, index: u32, socket: BorrowedFd<'_>) -> std::result::Result<(), MapError> {
    let fd = socket.as_raw_fd();
    match maps.steer_sockets.set(index, &fd, 0) {
        // The kernel refuses a socket that is in an array already, were it at this very index. Taken out
        // and put back, its group chooses by the kernel's hash for that moment.
        Err(MapError::SyscallError(error)) if Errno::from_io_error(&error.io_error) == Some(Errno::BUSY) => {
            maps.steer_sockets
                .clear_index(&index)
                .or_else(ignore_absent)
                .and_then(|()| maps.steer_sockets.set(index, &fd, 0))
        }
        set => set,
    }
}

fn ignore_absent(error: MapError) -> std::result::Result<(), MapError> {
    match &error {
        MapError::KeyNotFound => Ok(()),
        MapError::SyscallError(call) if call.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Without flow label and scope, which the maps do not have.
fn unscoped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn steer_key(address: SocketAddr, protocol: u8) -> SteerKey {
    SteerKey { address: mapped(address.ip()), port: Be16::new(address.port()), protocol, pad: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(worker_cores: &[usize], interfaces: &[(&str, Device)]) -> Facts {
        Facts {
            worker_cores: worker_cores.into(),
            interfaces: interfaces
                .iter()
                .map(|(name, device)| InterfaceFacts { name: (*name).to_owned(), device: device.clone() })
                .collect(),
        }
    }

    fn queues(cores: &[usize]) -> Device {
        Device::Queues(cores.into())
    }

    #[test]
    fn auto_is_core_where_every_worker_has_a_queue() {
        let choice = choose(Steer::Auto, &facts(&[0, 1], &[("eth0", queues(&[0, 1, 2]))]));
        assert_eq!(choice.mode, SteerMode::Core);
    }

    #[test]
    fn one_worker_without_a_queue_makes_it_hash() {
        let choice = choose(Steer::Auto, &facts(&[0, 3], &[("eth0", queues(&[0, 1, 2]))]));
        assert_eq!(choice.mode, SteerMode::Hash);
        assert!(choice.reason.contains("core 3") && choice.reason.contains("eth0"), "{}", choice.reason);
        let second = [("eth0", queues(&[0, 1])), ("eth1", queues(&[0]))];
        assert_eq!(choose(Steer::Auto, &facts(&[0, 1], &second)).mode, SteerMode::Hash);
    }

    #[test]
    fn loopback_and_veth_are_hash() {
        for interfaces in
            [vec![("lo", Device::Software)], vec![("eth0", queues(&[0])), ("veth0", Device::Software)]]
        {
            let choice = choose(Steer::Auto, &facts(&[0], &interfaces));
            assert_eq!(choice.mode, SteerMode::Hash);
            assert!(choice.reason.contains(interfaces.last().unwrap().0), "{}", choice.reason);
        }
        assert_eq!(choose(Steer::Auto, &facts(&[0], &[])).mode, SteerMode::Hash);
    }

    #[test]
    fn what_xdp_spreads_is_by_core() {
        let choice = choose(Steer::Auto, &facts(&[0, 1], &[("eth0", Device::Spread)]));
        assert_eq!(choice.mode, SteerMode::Core);
        assert!(choice.reason.contains("eth0"), "{}", choice.reason);
        let both = [("eth0", Device::Spread), ("eth1", Device::Software)];
        assert_eq!(choose(Steer::Auto, &facts(&[0, 1], &both)).mode, SteerMode::Hash);
    }

    #[test]
    fn what_the_listener_says_holds() {
        assert_eq!(choose(Steer::Core, &facts(&[0], &[("lo", Device::Software)])).mode, SteerMode::Core);
        assert_eq!(choose(Steer::Hash, &facts(&[0], &[("eth0", queues(&[0]))])).mode, SteerMode::Hash);
    }
}
