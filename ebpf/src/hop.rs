//! The way to a backend, from the routing table or from what it said a moment ago.

use lb_abi::{hop::HopEntry, reason::Reason};

use crate::{
    env::{Env, NextHop, Route, Unroutable},
    select::Choice,
};

/// The next hop to a chosen backend; the error is what the packet is dropped for.
///
/// The routing table is asked once per tick, core and backend, and again for a packet that the last answer does
/// not cover. Refusals are not kept. So routing rules that tell packets for one backend apart, by what they carry
/// or by who sent them, are not for us.
#[inline(always)]
pub fn to_backend<E: Env>(env: &E, ingress: u32, choice: &Choice, route: &Route) -> Result<NextHop, Reason> {
    let tick = env.hop_ticks();
    if let Some(kept) = env.hop(choice.id)
        && kept.tick == tick
        && kept.ingress == ingress
        && kept.generation == choice.generation
        && kept.mtu >= route.length
    {
        let HopEntry { interface, addresses, mtu, .. } = kept;
        return Ok(NextHop { interface, addresses, mtu });
    }
    let hop = env.route(ingress, route).map_err(Unroutable::reason)?;
    let NextHop { interface, addresses, mtu } = hop;
    let generation = choice.generation;
    env.keep_hop(choice.id, HopEntry { tick, ingress, generation, interface, addresses, mtu, pad: 0 });
    Ok(hop)
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

        fn route(&self, _: u32, route: &Route) -> Result<NextHop, Unroutable> {
            self.asked.set(self.asked.get() + 1);
            if self.refuses.get() {
                return Err(Unroutable::NoNeighbour);
            }
            if route.length > MTU {
                return Err(Unroutable::TooLong);
            }
            Ok(NextHop { interface: self.asked.get(), addresses: [7; 6], mtu: MTU })
        }

        fn count(&self, _: Reason) {}

        fn count_flow(&self, _: FlowEvent) {}

        fn count_traffic(&self, _: u32, _: u16, _: u64, _: bool) {}
    }

    fn choice(id: u16, generation: u32) -> Choice {
        Choice { id, address: Address::default(), generation, is_local: false, new_flow: false }
    }

    fn ask(world: &World, ingress: u32, choice: &Choice, length: u16) -> Result<u32, Reason> {
        let (source, destination) = (Address::default(), choice.address);
        let route = Route { family: Family::V6, source, destination, protocol: 4, length };
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
        assert_eq!(ask(&world, 9, &one, MTU + 1), Err(Reason::Mtu));
        assert_eq!(ask(&world, 9, &one, 100), Ok(1), "a refusal leaves what was kept");
        world.tick.set(1);
        world.refuses.set(true);
        assert_eq!(ask(&world, 9, &one, 100), Err(Reason::NoNeighbour), "an old answer is no answer");
        world.refuses.set(false);
        assert_eq!(ask(&world, 9, &one, 100), Ok(4));
    }
}
