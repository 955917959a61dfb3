//! How fast one source may open flows, and when that is looked at.
//!
//! Looking at a source's allowance costs more than forwarding its packet does. So every core counts the SYNs it sees by
//! tick of the coarse clock, and looks at allowances only while it sees more than a threshold: the *meter* arms it.

use crate::slot::TICK_SHIFT;

/// Units of an allowance per flow, so that slow rates refill evenly.
pub const FLOW: u32 = 256;

/// The one entry of map `LIMITS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// SYNs of one tick on one core that may pass without a look at their sources.
    pub armed_above: u32,
    /// Units that flow into an allowance per tick.
    pub refill: u32,
    /// Units that an allowance holds; at least [`FLOW`].
    pub burst: u32,
    /// Zero.
    pub pad: u32,
}

impl Limits {
    /// From what a person says, in flows per second and flows. A rate that is not zero never becomes zero.
    pub const fn new(armed_above_per_second: u32, rate_per_second: u32, burst: u32) -> Self {
        Self {
            armed_above: per_tick(armed_above_per_second),
            refill: per_tick(rate_per_second.saturating_mul(FLOW)),
            burst: burst.saturating_mul(FLOW),
            pad: 0,
        }
    }
}

/// Of so many per second, those of one tick, rounded up.
const fn per_tick(per_second: u32) -> u32 {
    ((per_second as u64) << TICK_SHIFT).div_ceil(1_000_000_000) as u32
}

/// Entry of map `METER`, per CPU: SYNs on this core.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Tick that is counted.
    pub tick: u32,
    /// SYNs in it.
    pub count: u32,
    /// SYNs in the tick before.
    pub previous: u32,
    /// Zero.
    pub pad: u32,
}

impl Meter {
    /// Counts one SYN.
    #[inline(always)]
    pub const fn counted(self, now: u32) -> Self {
        if self.tick == now {
            return Self { count: self.count.wrapping_add(1), ..self };
        }
        let is_next = now.wrapping_sub(self.tick) == 1;
        Self { tick: now, count: 1, previous: if is_next { self.count } else { 0 }, pad: 0 }
    }

    /// Whether sources are looked at. The tick before counts as well: a flood that goes on is not let through at the
    /// beginning of every tick.
    #[inline(always)]
    pub const fn is_armed(self, limits: &Limits) -> bool {
        self.count > limits.armed_above || self.previous > limits.armed_above
    }
}

/// Value of map `NEW_FLOWS`, by source: one word, so that no core reads half a change. Two cores that take from it at
/// once may take one for two; it is a limit, not an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Tick that it was last filled at.
    pub tick: u32,
    /// Units in it.
    pub level: u32,
}

impl Allowance {
    /// Of a source that was not seen lately.
    #[inline(always)]
    pub const fn full(limits: &Limits, now: u32) -> Self {
        Self { tick: now, level: limits.burst }
    }

    /// Takes one flow out; none: there is not one in it.
    #[inline(always)]
    pub const fn take(self, limits: &Limits, now: u32) -> (Self, bool) {
        // Another core's clock may be a tick ahead of ours: nothing has flowed in since.
        let elapsed = now.wrapping_sub(self.tick);
        let elapsed = if elapsed > u32::MAX / 2 { 0 } else { elapsed };
        let inflow = elapsed as u64 * limits.refill as u64;
        let level = self.level as u64 + inflow;
        let level = if level > limits.burst as u64 { limits.burst } else { level as u32 };
        let tick = if elapsed == 0 { self.tick } else { now };
        if level < FLOW {
            return (Self { tick, level }, false);
        }
        (Self { tick, level: level - FLOW }, true)
    }

    /// From the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { tick: word as u32, level: (word >> 32) as u32 }
    }

    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.tick as u64 | (self.level as u64) << 32
    }
}

const _: () = assert!(size_of::<Limits>() == 16);
const _: () = assert!(size_of::<Meter>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u32 = 8;

    #[test]
    fn an_allowance_lets_its_burst_through_and_then_its_rate() {
        let limits = Limits::new(0, 10, 3);
        let mut allowance = Allowance::full(&limits, 100);
        let mut passed = [0; 3];
        for (second, passed) in (0..).zip(&mut passed) {
            for now in 100 + second * SECOND..100 + (second + 1) * SECOND {
                for _ in 0..50 {
                    let (next, is_allowed) = allowance.take(&limits, now);
                    (allowance, *passed) = (next, *passed + u32::from(is_allowed));
                }
            }
        }
        // Eight ticks are 1.07 s: 10.7 flows, and the burst before them.
        assert_eq!(passed, [12, 11, 10]);
    }

    #[test]
    fn a_slow_rate_is_a_rate() {
        let limits = Limits::new(0, 1, 1);
        let (allowance, first) = Allowance::full(&limits, 5).take(&limits, 5);
        assert!(first && !allowance.take(&limits, 6).1);
        assert!(allowance.take(&limits, 5 + SECOND).1);
    }

    #[test]
    fn an_allowance_overflows_and_no_clock_confuses_it() {
        let limits = Limits::new(0, u32::MAX, u32::MAX);
        let allowance = Allowance { tick: 7, level: 0 };
        assert_eq!(allowance.take(&limits, u32::MAX / 2).0.level, limits.burst - FLOW);
        let ahead = Allowance { tick: 8, level: FLOW };
        assert_eq!(ahead.take(&limits, 7), (Allowance { tick: 8, level: 0 }, true));
        let wrapped = Allowance { tick: u32::MAX, level: 0 };
        assert_eq!(wrapped.take(&Limits::new(0, 10, 5), 0).0, Allowance { tick: 0, level: 88 });
    }

    #[test]
    fn an_allowance_survives_its_word() {
        let allowance = Allowance { tick: 0x1234_5678, level: 0x9abc_def0 };
        assert_eq!(Allowance::from_word(allowance.to_word()), allowance);
    }

    #[test]
    fn a_meter_arms_within_a_tick_and_holds_over_the_next() {
        let limits = Limits { armed_above: 3, ..Limits::default() };
        let mut meter = Meter::default();
        let mut count = |now, times: u32| {
            (0..times).for_each(|_| meter = meter.counted(now));
            meter.is_armed(&limits)
        };
        assert!(!count(9, 3));
        assert!(count(9, 1));
        assert!(count(10, 1), "the tick before was above");
        assert!(!count(11, 1));
        assert!(count(12, 4));
        assert!(!count(14, 1), "a quiet tick lies between");
    }
}
