//! Keeps the kernel's neighbour table warm for backends that only XDP talks to.
//!
//! `bpf_fib_lookup` gives an Ethernet address only where the kernel has resolved it; XDP cannot ask for it. With
//! direct server return nothing else of ours may ever speak to a backend, so control sends it an empty datagram
//! to the discard port (RFC 863): whatever becomes of it, the kernel resolves the next hop first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Ticks between two rounds that nobody asked for: a forgotten entry comes back before many packets met its lack.
const EVERY: u32 = 20;
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

/// Makes the kernel find the way to `address`. Nothing is waited for, and a refusal is the prober's business.
pub(super) fn nudge(address: IpAddr) {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    if let Ok(socket) = UdpSocket::bind(SocketAddr::new(any, 0)) {
        _ = socket.send_to(&[], SocketAddr::new(address, DISCARD));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
