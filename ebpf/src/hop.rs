//! The way to a backend, from the routing table or from what it said a moment ago.
//!
//! The table speaks of interfaces as the kernel has them; frames come in and leave by what is beneath (map `LINKS`):
//! - a port of a bond is asked for as the bond, and what is to leave by the bond leaves by the port that the packet
//!   came in by: the bonding driver hands `XDP_TX` to the port of its choice;
//! - a VLAN device becomes the interface beneath it and the tags that its frames carry;
//! - where the table has no answer, a tunnel goes to the gateway of the interface, if that has one. The backend then
//!   need not be routed here, nor forwarding be on. By layer 2 a backend is a neighbour or nothing.

use lb_abi::{hop::HopEntry, link::LinkEntry};

use crate::{
    env::{Env, NextHop, Route, Unroutable},
    select::Choice,
};

/// The next hop to a chosen backend.
///
/// The routing table is asked once per tick, core and backend, and again for a packet that the last answer does
/// not cover. Refusals are not kept. So routing rules that tell packets for one backend apart, by what they carry
/// or by who sent them, are not for us.
#[inline(always)]
pub fn to_backend<E: Env>(
    env: &E,
    ingress: u32,
    choice: &Choice,
    route: &Route,
) -> Result<NextHop, Unroutable> {
    let wanted =
        HopEntry { tick: env.hop_ticks(), ingress, generation: choice.generation, ..HopEntry::default() };
    if let Some(hop) = kept(env, choice.id, &wanted, route.length) {
        return Ok(hop);
    }
    env.find_hop(choice.id, wanted, route)?;
    kept(env, choice.id, &wanted, route.length).ok_or(Unroutable::NoRoute)
}

/// The next hop to who is no backend. The routing table is asked for every packet; its answer comes by way of the place
/// of backend 0, which nobody is.
#[inline(always)]
pub fn to_anybody<E: Env>(env: &E, ingress: u32, route: &Route) -> Result<NextHop, Unroutable> {
    const NOBODY: u16 = 0;
    let wanted = HopEntry { ingress, ..HopEntry::default() };
    env.find_hop(NOBODY, wanted, route)?;
    kept(env, NOBODY, &wanted, route.length).ok_or(Unroutable::NoRoute)
}

/// What was found for this backend a moment ago, if it is from the tick, interface and generation that are wanted and
/// takes `length` bytes.
#[inline(always)]
fn kept<E: Env>(env: &E, backend: u16, wanted: &HopEntry, length: u16) -> Option<NextHop> {
    let HopEntry { interface, addresses, tags, mtu, .. } = env.hop(backend).filter(|kept| {
        kept.tick == wanted.tick
            && kept.ingress == wanted.ingress
            && kept.generation == wanted.generation
            && kept.mtu >= length
    })?;
    Some(NextHop { interface, addresses, tags, mtu })
}

/// Asks for the way to a backend and keeps the answer in what is `wanted`.
#[inline(always)]
pub fn find<E: Env>(env: &E, backend: u16, wanted: HopEntry, route: &Route) -> Result<(), Unroutable> {
    let NextHop { interface, addresses, tags, mtu } = ask(env, wanted.ingress, route)?;
    env.keep_hop(backend, HopEntry { interface, addresses, tags, mtu, ..wanted });
    Ok(())
}

/// The table's answer, in terms of what is beneath.
#[inline(always)]
fn ask<E: Env>(env: &E, ingress: u32, route: &Route) -> Result<NextHop, Unroutable> {
    let link = env.link(ingress);
    let from = match link {
        Some(link) if link.upper != 0 => link.upper,
        _ => ingress,
    };
    let beneath = |interface| if interface == from { ingress } else { interface };
    match env.route(from, route) {
        Ok(hop) if hop.interface == from => Ok(NextHop { interface: ingress, ..hop }),
        Ok(hop) => match env.link(hop.interface) {
            Some(device) if device.lower != 0 => {
                Ok(NextHop { interface: beneath(device.lower), tags: device.tags, ..hop })
            }
            _ => Ok(hop),
        },
        Err(Unroutable::NoRoute | Unroutable::NoNeighbour)
            if route.is_tunnel
                && let Some(link) = link
                && link.gateway_mtu != 0 =>
        {
            let LinkEntry { gateway: addresses, gateway_mtu: mtu, .. } = *link;
            if route.length > mtu {
                return Err(Unroutable::TooLong { mtu });
            }
            Ok(NextHop { interface: ingress, addresses, tags: [0; 2], mtu })
        }
        Err(unroutable) => Err(unroutable),
    }
}

#[cfg(test)]
mod tests {
    use core::cell::{Cell, RefCell};
    use std::vec::Vec;

    use lb_abi::{
        backend::BackendEntry,
        counter::FlowEvent,
        flow::{FlowKey, FlowRecord},
        meta::Meta,
        reason::Reason,
        slot::Slot,
        vip::{VipEntry, VipKey},
    };

    use super::*;
    use crate::{address::Address, env::FlowCell, numbers::Family};

    const MTU: u16 = 1500;

    /// A routing table whose answers are numbered, by their interface.
    #[derive(Default)]
    struct World {
        tick: Cell<u32>,
        asked: Cell<u32>,
        refuses: Cell<bool>,
        kept: RefCell<Vec<(u16, HopEntry)>>,
    }

    struct NoRecord;

    impl FlowCell for NoRecord {
        fn load(&self) -> FlowRecord {
            FlowRecord::default()
        }

        fn store(&self, _: FlowRecord) {}
    }

    impl Env for World {
        fn meta(&self) -> Option<&Meta> {
            None
        }

        fn vip(&self, _: &VipKey) -> Option<&VipEntry> {
            None
        }

        fn slot(&self, _: u32) -> Option<Slot> {
            None
        }

        fn backend(&self, _: u16) -> Option<&BackendEntry> {
            None
        }

        fn flow(&self, _: &FlowKey) -> Option<impl FlowCell> {
            None::<NoRecord>
        }

        fn record(&self, _: &FlowKey, _: FlowRecord) -> Option<()> {
            None
        }

        fn now_ticks(&self) -> u32 {
            self.tick.get()
        }

        fn hop(&self, backend: u16) -> Option<HopEntry> {
            // As in an array map: what nobody wrote is there, and zero.
            let kept = self.kept.borrow();
            Some(
                kept.iter()
                    .rev()
                    .find(|(id, _)| *id == backend)
                    .map_or_else(HopEntry::default, |(_, entry)| *entry),
            )
        }

        fn keep_hop(&self, backend: u16, entry: HopEntry) {
            self.kept.borrow_mut().push((backend, entry));
        }

        fn link(&self, _: u32) -> Option<&LinkEntry> {
            None
        }

        fn route(&self, _: u32, route: &Route) -> Result<NextHop, Unroutable> {
            self.asked.set(self.asked.get() + 1);
            if self.refuses.get() {
                return Err(Unroutable::NoNeighbour);
            }
            if route.length > MTU {
                return Err(Unroutable::TooLong { mtu: MTU });
            }
            Ok(NextHop { interface: self.asked.get(), addresses: [7; 6], tags: [0; 2], mtu: MTU })
        }

        fn may_answer(&self) -> bool {
            false
        }

        fn count(&self, _: Reason) {}

        fn count_flow(&self, _: FlowEvent) {}

        fn count_traffic(&self, _: u32, _: u16, _: u64, _: bool) {}
    }

    fn choice(id: u16, generation: u32) -> Choice {
        Choice { id, address: Address::default(), generation, is_local: false, new_flow: false }
    }

    fn ask(world: &World, ingress: u32, choice: &Choice, length: u16) -> Result<u32, Unroutable> {
        let (source, destination) = (Address::default(), choice.address);
        let route = Route { family: Family::V6, source, destination, protocol: 4, length, is_tunnel: true };
        to_backend(world, ingress, choice, &route).map(|hop| {
            assert_eq!((hop.addresses, hop.mtu), ([7; 6], MTU));
            hop.interface
        })
    }

    #[test]
    fn an_answer_holds_for_its_tick_interface_and_backend() {
        let world = World::default();
        let one = choice(1, 1);
        assert_eq!(ask(&world, 9, &one, 100), Ok(1), "nothing was kept, even at tick 0");
        assert_eq!(ask(&world, 9, &one, MTU), Ok(1));
        assert_eq!(ask(&world, 9, &choice(2, 1), 100), Ok(2), "another backend");
        assert_eq!(ask(&world, 9, &one, 100), Ok(1), "which did not push the first out");
        assert_eq!(ask(&world, 8, &one, 100), Ok(3), "another way in");
        assert_eq!(ask(&world, 8, &choice(1, 2), 100), Ok(4), "the id is another backend's by now");
        world.tick.set(1);
        assert_eq!(ask(&world, 8, &choice(1, 2), 100), Ok(5), "a tick later");
        assert_eq!(ask(&world, 8, &choice(1, 2), 100), Ok(5));
    }

    #[test]
    fn what_is_too_long_and_what_is_refused_is_asked_each_time() {
        let world = World::default();
        let one = choice(1, 1);
        assert_eq!(ask(&world, 9, &one, 100), Ok(1));
        assert_eq!(ask(&world, 9, &one, MTU + 1), Err(Unroutable::TooLong { mtu: MTU }));
        assert_eq!(ask(&world, 9, &one, 100), Ok(1), "a refusal leaves what was kept");
        world.tick.set(1);
        world.refuses.set(true);
        assert_eq!(ask(&world, 9, &one, 100), Err(Unroutable::NoNeighbour), "an old answer is no answer");
        world.refuses.set(false);
        assert_eq!(ask(&world, 9, &one, 100), Ok(4));
    }
}
