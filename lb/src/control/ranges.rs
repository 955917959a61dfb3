//! Hands the ranges of listeners to `lb_lookup`.

use super::addresses::Held;
use crate::steering::{self, LookupGroup, Plane};

/// Number of TCP.
const TCP: u8 = 6;

/// Gives every range to its group. What is missing for packets to arrive at all, one sentence for each range.
///
/// # Errors
/// The kernel refuses: nobody would hear those who connect.
pub(super) fn give(plane: &mut Plane, held: &[Held]) -> steering::Result<Vec<String>> {
    let ours = || held.iter().filter(|held| !held.ranges().is_empty());
    let all: Vec<_> = ours().map(given).collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    plane.look_up(&all)?;
    let mut warnings = Vec::new();
    for range in ours().flat_map(Held::ranges) {
        // The whole internet is never routed here; what of it is, an interface has.
        if range.net.prefix_len() > 0 && !plane.is_local(range.net.network())? {
            let net = range.net;
            warnings.push(format!(
                "{range}: no route says that {net} is this host, so its packets never get to a listener: \
                 ip route add local {net} dev lo"
            ));
        }
    }
    Ok(warnings)
}

fn given(held: &Held) -> LookupGroup<'_> {
    LookupGroup { ranges: held.ranges(), address: held.address, protocol: TCP }
}
