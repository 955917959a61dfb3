//! Whether XDP spreads listeners' packets over the workers' cores, so that `lb_steer` may choose by core.

use std::ops::RangeInclusive;

use rustix::{
    io,
    rand::{GetRandomFlags, getrandom},
};

use super::addresses::Held;
use crate::{
    config::{self, Config},
    steering::{self, Plane, SpreadChoice},
};

/// What is lost where packets were to be spread and are not.
const LOST: &str = "listeners' packets stay on the cores that they come in on";

/// Decides, and arms or disarms XDP. What came of it (`None` without `[xdp]`), and what is lost, one sentence each.
pub(super) fn arm(
    plane: &mut Plane,
    config: &Config,
    cores: &[usize],
    held: &[Held],
) -> (Option<SpreadChoice>, Vec<String>) {
    let choice = config.xdp.as_ref().map(|xdp| choose(xdp, cores)).transpose();
    let armed = choice.map_err(|error| error.to_string()).and_then(|choice| {
        if choice.as_ref().is_some_and(|choice| choice.on) {
            spread(plane, cores, held)?;
        } else {
            plane.disarm_spread().map_err(|error| error.to_string())?;
        }
        Ok(choice)
    });
    match armed {
        Ok(choice) => {
            let unsummed =
                choice.iter().flat_map(|choice| &choice.unsummed).map(|interface| unsummed(interface));
            let warnings = unsummed.collect();
            (choice, warnings)
        }
        Err(error) => {
            let error = plane.disarm_spread().err().map_or(error, |error| error.to_string());
            let warning = format!("xdp.spread: {error}: {LOST}");
            (Some(SpreadChoice { on: false, reason: error, unsummed: Vec::new() }), vec![warning])
        }
    }
}

fn unsummed(interface: &str) -> String {
    format!(
        "xdp.spread: {interface} is a device of the kernel's own; where a sender on this machine leaves checksums to \
         it, its packets to listeners are lost (of a veth, at the far end: ethtool -K DEVICE tx off)"
    )
}

fn choose(xdp: &config::Xdp, cores: &[usize]) -> steering::Result<SpreadChoice> {
    let names: Vec<&str> = xdp.interfaces.iter().map(|interface| &*interface.name).collect();
    Ok(steering::choose_spread(xdp.spread, &steering::gather_interface_facts(&names)?, cores))
}

fn spread(plane: &mut Plane, cores: &[usize], held: &[Held]) -> Result<(), String> {
    let key = key().map_err(|errno| format!("getrandom: {errno}"))?;
    plane
        .arm_spread(cores, held.iter().filter(|held| !held.wanted.is_udp).flat_map(ports), key)
        .map_err(|error| error.to_string())
}

/// Ports that clients of an address know.
fn ports(held: &Held) -> impl Iterator<Item = RangeInclusive<u16>> {
    let own = if held.ranges().is_empty() { Some(held.address.port()) } else { None };
    let ranges = held.ranges().iter().map(|range| range.first..=range.last);
    own.map(|port| port..=port).into_iter().chain(ranges)
}

fn key() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    let number = u128::from_ne_bytes(bytes);
    Ok([number as u64, (number >> 64) as u64])
}
