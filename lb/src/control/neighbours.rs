//! Keeps the kernel's neighbour table warm for backends that only XDP talks to.
//!
//! `bpf_fib_lookup` gives an Ethernet address only where the kernel has resolved it; XDP cannot ask for it. With
//! direct server return nothing else of ours may ever speak to a backend, so control sends it an empty datagram
//! to the discard port (RFC 863): whatever becomes of it, the kernel resolves the next hop first.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Ticks between two rounds that nobody asked for: a forgotten entry comes back before many packets met its lack.
const EVERY: u32 = 20;
/// Addresses for each socket: datagrams that wait for a neighbour count against its send buffer, and a full one
/// would take no more (212 992 bytes by default, some 768 for each that waits).
const PER_SOCKET: usize = 128;
/// RFC 863.
const DISCARD: u16 = 9;

/// When the next round is due.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Packets dropped for want of an Ethernet address, when last looked at.
    unknown: u64,
    /// Ticks until the next round.
    left: u32,
}

impl Neighbours {
    /// To be asked once per tick: due at first, whenever more packets were dropped, and every [`EVERY`] ticks.
    pub(super) fn are_due(&mut self, unknown: u64) -> bool {
        let due = self.left == 0 || unknown != self.unknown;
        self.left = if due { EVERY } else { self.left - 1 };
        self.unknown = unknown;
        due
    }
}

/// Makes the kernel find the way to each of `addresses`; one behind a router makes it find the router. Nothing is
/// waited for, and a refusal is the prober's business.
pub(super) fn nudge(addresses: BTreeSet<IpAddr>) {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    let v4 = v4.chunks(PER_SOCKET).map(|chunk| (IpAddr::from(Ipv4Addr::UNSPECIFIED), chunk));
    let v6 = v6.chunks(PER_SOCKET).map(|chunk| (IpAddr::from(Ipv6Addr::UNSPECIFIED), chunk));
    for (any, chunk) in v4.chain(v6) {
        let Ok(socket) = UdpSocket::bind(SocketAddr::new(any, 0)) else { continue };
        if socket.set_nonblocking(true).is_err() {
            continue;
        }
        for address in chunk {
            _ = socket.send_to(&[], SocketAddr::new(*address, DISCARD));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than one socket's worth, and one that nobody routes to in front of it.
    #[test]
    fn every_address_gets_its_datagram() {
        let Ok(discard) = UdpSocket::bind((Ipv4Addr::new(127, 9, 0, 200), DISCARD)) else {
            assert!(std::env::var_os("CI").is_none(), "no port below 1024, and this is CI");
            return eprintln!("skipped: no port below 1024");
        };
        discard.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut addresses: BTreeSet<IpAddr> = (1..=200).map(|last| [127, 9, 0, last].into()).collect();
        addresses.insert([0, 0, 0, 1].into());
        nudge(addresses);
        let mut buffer = [0; 8];
        assert_eq!(discard.recv(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn due_at_first_when_packets_are_lost_and_from_time_to_time() {
        let mut neighbours = Neighbours::default();
        assert!(neighbours.are_due(0));
        assert!(!neighbours.are_due(0));
        assert!(neighbours.are_due(3), "packets were lost");
        let quiet = (0..EVERY).filter(|_| neighbours.are_due(3)).count();
        assert_eq!(quiet, 0);
        assert!(neighbours.are_due(3), "a round has passed");
    }
}
