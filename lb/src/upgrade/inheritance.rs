//! What a process has from another one.

use std::{net::SocketAddr, os::fd::OwnedFd, path::PathBuf, time::Instant};

use super::message::{Down, Ejections, Leaving};
use crate::tls::TicketKeys;

/// Sockets and state that were there before.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Another process listens at these sockets still.
    pub is_handed_over: bool,
    /// When it told what follows.
    pub told: Option<Instant>,
    /// How each group of another process is told from others, in its order.
    pub order: Vec<(SocketAddr, bool, Vec<String>)>,
    /// Listening sockets.
    pub groups: Vec<InheritedGroup>,
    /// The admin API's unix socket, and where it is.
    pub admin: Option<(PathBuf, OwnedFd)>,
    /// Its TCP endpoint.
    pub http: Option<(SocketAddr, OwnedFd)>,
    /// Backends that were down.
    pub down: Vec<Down>,
    /// Backends that exchanges speak or spoke against.
    pub ejections: Vec<Ejections>,
    /// Older processes that still drain.
    pub leaving: Vec<Leaving>,
    /// Keys of tickets.
    pub ticket_keys: Option<TicketKeys>,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct InheritedGroup {
    /// As the config had it.
    pub address: SocketAddr,
    /// As it is bound.
    pub bound: SocketAddr,
    /// For datagrams.
    pub is_udp: bool,
    /// What `lb_lookup` gives to them, as text.
    pub ranges: Vec<String>,
    /// By worker.
    pub sockets: Vec<OwnedFd>,
}

impl Inheritance {
    /// Takes the sockets of an address out, if they are there.
    pub fn take(&mut self, address: SocketAddr, is_udp: bool, ranges: &[String]) -> Option<InheritedGroup> {
        let is_it = |group: &InheritedGroup| {
            (group.address, group.is_udp) == (address, is_udp) && group.ranges == ranges
        };
        let at = self.groups.iter().position(is_it)?;
        Some(self.groups.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_what_the_config_says() {
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let group = |is_udp, ranges: &[&str]| InheritedGroup {
            address,
            bound: "127.0.0.1:4000".parse().unwrap(),
            is_udp,
            ranges: ranges.iter().map(|range| (*range).to_owned()).collect(),
            sockets: Vec::new(),
        };
        let groups = vec![group(false, &["10.0.0.0/8 1-2"]), group(true, &[]), group(false, &[])];
        let mut inheritance = Inheritance { groups, ..Inheritance::default() };
        assert!(inheritance.take("127.0.0.1:1".parse().unwrap(), false, &[]).is_none());
        let taken = inheritance.take(address, false, &[]).unwrap();
        assert!(!taken.is_udp && taken.ranges.is_empty());
        assert!(inheritance.take(address, false, &[]).is_none(), "once");
        assert!(inheritance.take(address, true, &[]).unwrap().is_udp);
    }
}
