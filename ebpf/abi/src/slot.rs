//! One slot of a Maglev table: who owns it, and whether it is moving.
//!
//! ```text
//!          change               flow memory passed,              grace passed,
//!          (epoch + 1)          nothing refused meanwhile        no live stray found
//!  settled ----------> open ------------------------------> closed --------------------> settled
//!     |                | ^ |        or a change back,          |
//!     +--+             | | +--------or `previous` died         |
//!     ^  | owner died  | |                                     | change (same epoch)
//!     +--+             | +-------------------------------------+
//!        table full,   v ^  grace passed, ended records gone
//!        records end  sweeping
//! ```
//! One 64-bit word, so that a packet reads it whole and control stores it whole. What packets do by it stands in
//! `lb_ebpf::select`, what control does in `lb::steering`.

/// Nanoseconds of the coarse monotonic clock shifted right by this are ticks (134.2 ms).
pub const TICK_SHIFT: u32 = 27;

/// Ticks in `seconds`, rounded up.
pub const fn ticks(seconds: u32) -> u32 {
    ((seconds as u64 * 1_000_000_000) >> TICK_SHIFT) as u32 + 1
}

/// A program, and a step of control from reading the clock to its last store, take less than this. What was
/// decided by an older word or record is done once it has passed.
pub const GRACE_TICKS: u32 = ticks(1);

/// Bits of [`Slot::changed_at`].
pub const CHANGED_AT_MASK: u32 = 0xff_ffff;

/// Where a slot stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Packets go to the owner; no flow is read or written.
    Settled,
    /// Just changed: SYNs go to the owner, unrecorded others to `previous`; both are recorded.
    Open,
    /// Unrecorded packets go to the owner; only live records of another backend still count.
    Closed,
    /// Open, but nothing is recorded for a moment, while control takes ended records away.
    Sweeping,
}

/// A slot as it lies in map `SLOTS`.
///
/// Bits: owner 0..16, previous 16..32, phase 32..34, epoch 34..40, changed-at 40..64 (ticks modulo 2^24).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(pub u64);

impl Slot {
    /// A slot that has not moved for longer than flows are remembered.
    pub const fn settled(owner: u16, epoch: u8, now_ticks: u32) -> Self {
        Self::new(owner, owner, Phase::Settled, epoch, now_ticks)
    }

    /// Any slot. `epoch` is taken modulo 64.
    #[inline(always)]
    pub const fn new(owner: u16, previous: u16, phase: Phase, epoch: u8, changed_at: u32) -> Self {
        let phase = match phase {
            Phase::Settled => 0,
            Phase::Open => 1,
            Phase::Closed => 2,
            Phase::Sweeping => 3,
        };
        Self(
            owner as u64
                | (previous as u64) << 16
                | phase << 32
                | ((epoch & 63) as u64) << 34
                | ((changed_at & CHANGED_AT_MASK) as u64) << 40,
        )
    }

    /// Backend id that new flows go to; 0: none.
    #[inline(always)]
    pub const fn owner(self) -> u16 {
        self.0 as u16
    }

    /// Backend id that unrecorded old flows go to while the slot is open.
    #[inline(always)]
    pub const fn previous(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Phase.
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        match (self.0 >> 32) & 3 {
            1 => Phase::Open,
            2 => Phase::Closed,
            3 => Phase::Sweeping,
            _ => Phase::Settled,
        }
    }

    /// Bumped at settled -> open; a flow record of another epoch is absent.
    #[inline(always)]
    pub const fn epoch(self) -> u8 {
        ((self.0 >> 34) & 63) as u8
    }

    /// When the phase last changed, or control began its time anew, ticks modulo 2^24.
    #[inline(always)]
    pub const fn changed_at(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// Ticks since the phase last changed, at `now_ticks`.
    #[inline(always)]
    pub const fn age(self, now_ticks: u32) -> u32 {
        now_ticks.wrapping_sub(self.changed_at()) & CHANGED_AT_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_the_word() {
        for phase in [Phase::Settled, Phase::Open, Phase::Closed, Phase::Sweeping] {
            let slot = Slot::new(0xfffe, 7, phase, 63, 0x1234_5678);
            assert_eq!(slot.owner(), 0xfffe);
            assert_eq!(slot.previous(), 7);
            assert_eq!(slot.phase(), phase);
            assert_eq!(slot.epoch(), 63);
            assert_eq!(slot.changed_at(), 0x34_5678);
        }
    }

    #[test]
    fn age_counts_over_the_wrap() {
        let slot = Slot::new(1, 1, Phase::Closed, 0, CHANGED_AT_MASK);
        assert_eq!(slot.age(4), 5);
    }
}
