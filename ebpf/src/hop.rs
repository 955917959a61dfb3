//! The way to a backend, from the routing table.
//!
//! The table speaks of interfaces as the kernel has them; frames come in and leave by what is beneath (map `LINKS`):
//! - a port of a bond is asked for as the bond, and what is to leave by the bond leaves by the port that the packet
//!   came in by: the bonding driver hands `XDP_TX` to the port of its choice;
//! - a VLAN device becomes the interface beneath it and the tags that its frames carry;
//! - where the table has no answer, a tunnel goes to the gateway of the interface, if that has one. The backend then
//!   need not be routed here, nor forwarding be on. By layer 2 a backend is a neighbour or nothing.

use lb_abi::{hop::HopEntry, link::LinkEntry};

use crate::{
    env::Env,
    route::{NextHop, Route, Unroutable},
};

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
