//! How many flows are alive, told from the slots that packets of theirs read.
//!
//! Nothing is kept per flow. A packet leaves the number of the present window in the cell of its slot, if another one
//! is there; a window is some seconds, and control counts it up. Flows fall into slots at random, so of `m` slots that
//! `n` flows may read, `m * exp(-n / m)` are read by none: from those that were read, `n` follows (linear counting).
//! Source: Whang, Vander-Zanden, Taylor, "A linear-time probabilistic counting algorithm", 1990.
//!
//! Where there are many flows it is enough to look at one slot in eight, and cheaper: the others are not even written.

/// Ticks of a window: 15 seconds.
pub const WINDOW_TICKS: u32 = 112;
/// Cells in one value of map `ACTIVITY`; a power of two.
pub const PAGE_CELLS: u32 = 2048;
/// Values of map `ACTIVITY`: a cell for each slot.
pub const PAGES: u32 = crate::bounds::SLOTS_MAX.div_ceil(PAGE_CELLS);
/// One value of map `ACTIVITY`.
pub type Page = [u16; PAGE_CELLS as usize];

/// `Meta::activity`: the window's number, and which slots are looked at.
#[inline(always)]
pub const fn word(window: u16, mask: u16) -> u32 {
    window as u32 | (mask as u32) << 16
}

/// Number of the window.
#[inline(always)]
pub const fn window(word: u32) -> u16 {
    word as u16
}

/// Slots are looked at whose index has none of these bits.
#[inline(always)]
pub const fn mask(word: u32) -> u16 {
    (word >> 16) as u16
}

/// Page and cell of a slot that is looked at; none: it is not.
#[inline(always)]
pub const fn place(word: u32, slot: u32) -> Option<(u32, usize)> {
    if slot & mask(word) as u32 != 0 {
        return None;
    }
    Some((slot / PAGE_CELLS, (slot & (PAGE_CELLS - 1)) as usize))
}

const _: () = assert!(PAGE_CELLS.is_power_of_two() && size_of::<Page>() == 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_in_eight_or_each() {
        let (all, some) = (word(0xfffe, 0), word(7, 7));
        assert_eq!((window(all), mask(all), window(some), mask(some)), (0xfffe, 0, 7, 7));
        assert_eq!(place(all, PAGE_CELLS + 3), Some((1, 3)));
        assert_eq!((0..80).filter(|slot| place(some, *slot).is_some()).count(), 10);
    }
}
