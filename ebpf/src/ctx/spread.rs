//! Maps of what is spread over cores.

use lb_abi::{
    be::Be16,
    spread::{Spread, port_bit},
};

use crate::maps;

/// See [`lb_ebpf::env::Env::is_spread`].
#[inline(always)]
pub(super) fn is_spread(port: Be16) -> bool {
    let (word, bit) = port_bit(port.host());
    maps::SPREAD_PORTS.get(word).is_some_and(|ports| ports & bit != 0)
}

/// See [`lb_ebpf::env::Env::spread`].
#[inline(always)]
pub(super) fn spread<'a>() -> Option<&'a Spread> {
    maps::SPREAD.get(0)
}

/// See [`lb_ebpf::env::Env::core_of`].
#[inline(always)]
pub(super) fn core_of(worker: u32) -> Option<u32> {
    maps::SPREAD_CORES.get(worker).copied()
}
