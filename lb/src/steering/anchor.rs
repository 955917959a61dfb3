//! Entries of `VIPS` under keys that no packet has: they hold the tables of pools that only some clients are led to (see
//! [`super::sources`]), so that all that is true of a VIP's table is true of theirs.

use std::time::Duration;

use lb_abi::{
    be::Be16,
    bounds::TABLE_LEN,
    hash::sip13,
    vip::{VipEntry, VipKey},
};

use super::{regions::Region, terms::ticks};

/// [`VipKey::protocol`] of an anchor: reserved (IANA), and looked up for no packet.
pub(super) const ANCHOR: u8 = 255;

/// The key that holds the table of a pool.
pub(super) fn anchor(pool: &str) -> VipKey {
    let words = |seed| {
        let mut digest = pool.len() as u64;
        for chunk in pool.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            digest = sip13([seed, 0], [digest, u64::from_le_bytes(word)]);
        }
        digest.to_le_bytes()
    };
    let mut address = [0; 16];
    let (high, low) = address.split_at_mut(8);
    high.copy_from_slice(&words(1));
    low.copy_from_slice(&words(2));
    VipKey { address, port: Be16::new(0), protocol: ANCHOR, host_bits: 0 }
}

/// What an anchor holds: a table that no packet is led to by the key itself.
pub(super) fn anchored(region: Region, memory: Duration) -> VipEntry {
    VipEntry {
        // No VIP's counters.
        vip: u32::MAX,
        table: region.first_slot(),
        table_len: TABLE_LEN,
        flow_idle_ticks: ticks(memory).saturating_add(1),
        ..VipEntry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_their_pools_own() {
        assert_eq!(anchor("blue"), anchor("blue"));
        assert_ne!(anchor("blue"), anchor("green"));
        assert_eq!(anchor("blue").protocol, ANCHOR);
    }
}
