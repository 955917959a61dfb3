//! What config says, in the maps' terms.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use lb_abi::slot::TICK_SHIFT;

/// An address as the maps have it: IPv4 as `::ffff:a.b.c.d`.
pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Bits of an address behind a prefix.
pub(super) fn host_bits_of(net: &IpNet) -> u32 {
    u32::from(net.max_prefix_len() - net.prefix_len())
}

/// Ticks of the packet path's clock, from the time since boot (CLOCK_MONOTONIC, coarse or not).
pub const fn ticks(since_boot: Duration) -> u32 {
    (since_boot.as_nanos() >> TICK_SHIFT) as u32
}

/// How long that many ticks last; the inverse of [`ticks`], rounded down to whole ticks.
pub const fn duration(ticks: u32) -> Duration {
    Duration::from_nanos((ticks as u64) << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_the_clocks_high_bits() {
        assert_eq!(ticks(Duration::from_nanos((1 << TICK_SHIFT) - 1)), 0);
        assert_eq!(ticks(Duration::from_nanos(3 << TICK_SHIFT)), 3);
        assert_eq!(ticks(duration(12_345)), 12_345);
    }
}
