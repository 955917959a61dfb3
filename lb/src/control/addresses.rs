//! Which addresses are listened at, and what a config changes in that: who stays keeps its sockets.

use std::net::SocketAddr;

use super::listeners::{self, BindError, Group, Wanted};
use crate::{
    config::BindRange,
    model::{GroupId, ListenerId},
    upgrade::Inheritance,
};

/// One address at which the workers listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: GroupId,
    /// As the config has it, and whose it is.
    pub(super) wanted: Wanted,
    /// As it is bound.
    pub(super) address: SocketAddr,
    /// How many sockets it has.
    pub(super) sockets: usize,
}

impl Held {
    fn of(group: &Group, wanted: Wanted) -> Self {
        Self { id: group.id, wanted, address: group.address, sockets: group.sockets.len() }
    }

    /// What `lb_lookup` gives to it.
    pub(super) fn ranges(&self) -> &[BindRange] {
        &self.wanted.ranges
    }

    fn is(&self, wanted: &Wanted) -> bool {
        (self.wanted.address, self.wanted.is_udp) == (wanted.address, wanted.is_udp)
            && self.wanted.ranges == wanted.ranges
    }

    /// Whether nobody else could be bound there.
    fn covers(&self, wanted: &Wanted) -> bool {
        let (own, other) = (self.address, wanted.address);
        let is_any = |address: SocketAddr| address.ip().is_unspecified();
        self.wanted.is_udp == wanted.is_udp
            && own.port() == other.port()
            && own.is_ipv4() == other.is_ipv4()
            && (own.ip() == other.ip() || is_any(own) || is_any(other))
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    held: Vec<Held>,
    /// The number of the last group.
    last: u32,
}

/// What a config changes.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// With their sockets; of an address that stays, those that come to the ones it has.
    pub(super) opened: Vec<Group>,
    pub(super) closed: Vec<Held>,
    /// Those that are another listener's now.
    pub(super) moved: Vec<(GroupId, ListenerId)>,
}

impl Moves {
    pub(super) const fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty() && self.moved.is_empty()
    }
}

impl Addresses {
    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    /// Binds what comes. Nothing is taken there yet, nor closed elsewhere; dropped, it is as it was.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub(super) fn prepare(&self, wanted: Vec<Wanted>, workers: usize) -> Result<(Self, Moves), BindError> {
        self.prepare_with(wanted, workers, &mut Inheritance::default())
    }

    /// As [`Self::prepare`]; what another process has bound is taken out of its inheritance.
    ///
    /// # Errors
    /// The same.
    pub(super) fn prepare_with(
        &self,
        wanted: Vec<Wanted>,
        workers: usize,
        inheritance: &mut Inheritance,
    ) -> Result<(Self, Moves), BindError> {
        let mut next = Self { held: Vec::with_capacity(wanted.len()), last: self.last };
        let mut moves = Moves::default();
        for wanted in wanted {
            if let Some(held) = self.held.iter().find(|held| held.is(&wanted)) {
                if held.wanted.listener != wanted.listener {
                    moves.moved.push((held.id, wanted.listener));
                }
                // One more for datagrams would give clients to it that have a flow elsewhere.
                let sockets = if wanted.is_udp { held.sockets } else { held.sockets.max(workers) };
                if sockets > held.sockets {
                    moves.opened.push(listeners::widen(
                        &wanted,
                        held.id,
                        held.address,
                        held.sockets,
                        workers,
                    )?);
                }
                next.held.push(Held { wanted, sockets, ..held.clone() });
                continue;
            }
            next.last += 1;
            if let Some(group) = inheritance.take(wanted.address, wanted.is_udp, &wanted.spelled_ranges()) {
                let group = listeners::adopt(&wanted, GroupId(next.last), workers, group)?;
                next.held.push(Held::of(&group, wanted));
                moves.opened.push(group);
                continue;
            }
            let is_ours = self.held.iter().chain(&next.held).any(|held| held.covers(&wanted));
            let group = listeners::bind(&wanted, GroupId(next.last), workers, is_ours)?;
            next.held.push(Held::of(&group, wanted));
            moves.opened.push(group);
        }
        let stays = |held: &&Held| next.held.iter().any(|other| other.id == held.id);
        moves.closed = self.held.iter().filter(|held| !stays(held)).cloned().collect();
        Ok((next, moves))
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, os::fd::AsRawFd};

    use super::*;

    fn wanted(listener: u16, address: &str) -> Wanted {
        Wanted {
            listener: ListenerId(listener),
            name: format!("l{listener}").into(),
            address: address.parse().unwrap(),
            is_udp: false,
            ranges: Vec::new(),
        }
    }

    #[test]
    fn who_stays_keeps_its_sockets() {
        let none = Addresses::default();
        let (first, opened) = none.prepare(vec![wanted(0, "127.0.0.1:0")], 2).unwrap();
        assert_eq!((opened.opened.len(), opened.opened[0].sockets.len()), (1, 2));
        let (same, moves) = first.prepare(vec![wanted(3, "127.0.0.1:0")], 2).unwrap();
        assert!(moves.opened.is_empty() && moves.closed.is_empty());
        assert_eq!(moves.moved, [(opened.opened[0].id, ListenerId(3))]);
        let (_, moves) = same.prepare(vec![wanted(3, "[::1]:0")], 2).unwrap();
        assert_eq!((moves.closed[0].id, moves.opened[0].id), (GroupId(1), GroupId(2)));
    }

    #[test]
    fn more_workers_have_more_sockets_and_fewer_keep_them() {
        let (one, _) = Addresses::default().prepare(vec![wanted(0, "127.0.0.1:0")], 1).unwrap();
        let (three, moves) = one.prepare(vec![wanted(0, "127.0.0.1:0")], 3).unwrap();
        let [opened] = &moves.opened[..] else { panic!("{moves:?}") };
        assert_eq!((opened.id, opened.first, opened.sockets.len()), (one.held[0].id, 1, 2));
        assert_eq!(opened.address, one.held[0].address);
        let (two, moves) = three.prepare(vec![wanted(0, "127.0.0.1:0")], 2).unwrap();
        assert!(moves.is_empty() && two.held[0].sockets == 3);
        let datagrams = || vec![Wanted { is_udp: true, ..wanted(1, "127.0.0.1:0") }];
        let (udp, _) = Addresses::default().prepare(datagrams(), 1).unwrap();
        let (udp, moves) = udp.prepare(datagrams(), 2).unwrap();
        assert!(moves.is_empty() && udp.held[0].sockets == 1, "a client stays with its socket");
    }

    #[test]
    fn an_address_of_our_own_may_be_had_beside_its_wildcard() {
        let (first, opened) = Addresses::default().prepare(vec![wanted(0, "0.0.0.0:0")], 1).unwrap();
        let port = opened.opened[0].address.port();
        let narrow = wanted(0, &format!("127.0.0.1:{port}"));
        // Of the kernel's choice as long as the config says 0.
        let known = Addresses {
            held: vec![Held { wanted: wanted(0, &format!("0.0.0.0:{port}")), ..first.held[0].clone() }],
            ..first
        };
        let (_, moves) = known.prepare(vec![narrow], 1).unwrap();
        assert!(moves.opened[0].sockets[0].as_raw_fd() > 0);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn who_cannot_be_had_changes_nothing() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        let free = wanted(0, "127.0.0.1:0");
        let error = Addresses::default().prepare(vec![free, wanted(1, &taken)], 1).unwrap_err();
        assert!(error.to_string().contains("listener l1"), "{error}");
    }
}
