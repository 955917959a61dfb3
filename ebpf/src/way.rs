//! The way to a backend, as the routing table said it a moment ago or says it now.

use lb_abi::hop::HopEntry;

use crate::{
    choose::Choice,
    route::{NextHop, Route, Unroutable},
    walk::Walk,
};

/// The next hop to a chosen backend.
///
/// The routing table is asked once per tick, core and backend, and again for a packet that the last answer does
/// not cover. Refusals are not kept. So routing rules that tell packets for one backend apart, by what they carry
/// or by who sent them, are not for us.
#[inline(always)]
pub fn to_backend<E: Walk>(
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
pub fn to_anybody<E: Walk>(env: &E, ingress: u32, route: &Route) -> Result<NextHop, Unroutable> {
    const NOBODY: u16 = 0;
    let wanted = HopEntry { ingress, ..HopEntry::default() };
    env.find_hop(NOBODY, wanted, route)?;
    kept(env, NOBODY, &wanted, route.length).ok_or(Unroutable::NoRoute)
}

/// What was found for this backend a moment ago, if it is from the tick, interface and generation that are wanted and
/// takes `length` bytes.
#[inline(always)]
fn kept<E: Walk>(env: &E, backend: u16, wanted: &HopEntry, length: u16) -> Option<NextHop> {
    let HopEntry { interface, addresses, tags, mtu, .. } = env.hop(backend).filter(|kept| {
        kept.tick == wanted.tick
            && kept.ingress == wanted.ingress
            && kept.generation == wanted.generation
            && kept.mtu >= length
    })?;
    Some(NextHop { interface, addresses, tags, mtu })
}

#[cfg(test)]
mod tests {
    use core::cell::{Cell, RefCell};
    use std::vec::Vec;

    use lb_abi::{
        backend::BackendEntry,
        counter::FlowEvent,
        flow::{FlowKey, FlowRecord},
        link::LinkEntry,
        meta::Meta,
        reason::Reason,
        slot::Slot,
        tag::FlowTag,
        vip::{VipEntry, VipKey},
    };

    use super::*;
    use crate::{
        address::Address,
        env::{Env, FlowCell},
        numbers::Family,
    };

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

        fn flow(&self, _: &FlowKey, _: FlowTag) -> Option<impl FlowCell> {
            None::<NoRecord>
        }

        fn record(&self, _: &FlowKey, _: FlowTag, _: FlowRecord) -> Option<()> {
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

    impl Walk for World {}

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
