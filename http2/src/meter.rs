//! What costs us much and the peer little has a budget.
//!
//! Counts are halved with each second that passes, so that a budget is what may come at once, and half of it what may come
//! each second for ever.

use std::time::{Duration, Instant};

use crate::{
    code::Code,
    frame::{FrameHead, kind},
};

/// How many frames of a kind may come at once. Of a peer that keeps to the protocol none comes near these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// RST_STREAM from the peer (CVE-2023-44487).
    pub resets: u32,
    /// RST_STREAM from the peer as long as the connection lives.
    pub resets_in_all: u64,
    /// RST_STREAM that we send for what the peer did wrong (CVE-2025-8671).
    pub resets_emitted: u32,
    /// PING, answers too, beyond one for each DATA frame that we send: who measures the path sends as many.
    pub pings: u32,
    /// SETTINGS, answers too.
    pub settings: u32,
    /// DATA that carries nothing and ends nothing.
    pub empty_data: u32,
    /// HEADERS beyond four for each that we send: a stream has a head and trailers, and a backend may send interim heads.
    pub heads: u32,
    /// CONTINUATION of one header block (CVE-2024-27316).
    pub continuations_of_block: u32,
    /// CONTINUATION of all.
    pub continuations: u32,
    /// Bytes of one header block as it is sent.
    pub block_bytes: u32,
    /// WINDOW_UPDATE beyond four for each DATA frame that we send and one for each head that comes.
    pub window_updates: u32,
    /// PRIORITY and PRIORITY_UPDATE (RFC 9218).
    pub priorities: u32,
    /// Frames of no known kind, or of a kind that comes once.
    pub unknown: u32,
}

impl Budgets {
    /// What honest peers do not come near.
    pub const DEFAULT: Self = Self {
        resets: 100,
        resets_in_all: 10_000,
        resets_emitted: 500,
        pings: 100,
        settings: 50,
        empty_data: 100,
        heads: 300,
        continuations_of_block: 20,
        continuations: 100,
        block_bytes: 128 << 10,
        window_updates: 1_000,
        priorities: 500,
        unknown: 100,
    };
}

impl Default for Budgets {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// See [`Budgets::resets`] and [`Budgets::resets_in_all`].
    Resets,
    /// See [`Budgets::resets_emitted`].
    ResetsEmitted,
    /// See [`Budgets::pings`].
    Pings,
    /// See [`Budgets::settings`].
    Settings,
    /// See [`Budgets::empty_data`].
    EmptyData,
    /// See [`Budgets::heads`].
    Heads,
    /// See [`Budgets::continuations_of_block`] and [`Budgets::continuations`].
    Continuations,
    /// See [`Budgets::block_bytes`].
    HeaderBlock,
    /// See [`Budgets::window_updates`].
    WindowUpdates,
    /// See [`Budgets::priorities`].
    Priorities,
    /// See [`Budgets::unknown`].
    Unknown,
}

impl Abuse {
    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::ResetsEmitted => "resets-emitted",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::EmptyData => "empty-data",
            Self::Heads => "heads",
            Self::Continuations => "continuations",
            Self::HeaderBlock => "header-block",
            Self::WindowUpdates => "window-updates",
            Self::Priorities => "priorities",
            Self::Unknown => "unknown-frames",
        }
    }
}

/// Counts of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    budgets: Budgets,
    counts: Counts,
    /// Not halved.
    resets_in_all: u64,
    block_continuations: u32,
    block_bytes: u32,
    /// When the counts were halved last.
    halved_at: Option<Instant>,
}

/// Counts that are halved.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    resets: u32,
    resets_emitted: u32,
    pings: u32,
    settings: u32,
    empty_data: u32,
    heads: u32,
    continuations: u32,
    window_updates: u32,
    priorities: u32,
    unknown: u32,
}

const HALF_LIFE: Duration = Duration::from_secs(1);
/// Halvings after which nothing is left of any count.
const HALVINGS_MAX: u32 = 32;
/// WINDOW_UPDATE that may come for each DATA frame that we send: for the stream and for the connection, from a peer that
/// tells of each half of one.
const UPDATES_PER_DATA: u32 = 4;
/// HEADERS that may come for each that we send.
const HEADS_PER_HEAD: u32 = 4;

impl Meter {
    pub(crate) fn new(budgets: Budgets) -> Self {
        Self {
            budgets,
            counts: Counts::default(),
            resets_in_all: 0,
            block_continuations: 0,
            block_bytes: 0,
            halved_at: None,
        }
    }

    /// Halves the counts for each whole second since they last were.
    #[inline]
    pub(crate) fn decay(&mut self, now: Instant) {
        let last = *self.halved_at.get_or_insert(now);
        let passed = now.saturating_duration_since(last);
        if passed >= HALF_LIFE {
            self.halve(last, now, passed);
        }
    }

    #[cold]
    fn halve(&mut self, last: Instant, now: Instant, passed: Duration) {
        let halvings = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        self.halved_at = last.checked_add(HALF_LIFE.saturating_mul(halvings)).or(Some(now));
        let counts = &mut self.counts;
        for count in [
            &mut counts.resets,
            &mut counts.resets_emitted,
            &mut counts.pings,
            &mut counts.settings,
            &mut counts.empty_data,
            &mut counts.heads,
            &mut counts.continuations,
            &mut counts.window_updates,
            &mut counts.priorities,
            &mut counts.unknown,
        ] {
            *count = if halvings >= HALVINGS_MAX { 0 } else { *count >> halvings };
        }
    }

    /// A frame of the peer's begins. DATA has its own count.
    ///
    /// # Errors
    /// What there is too much of: the peer is to be told to calm down (RFC 9113, 10.5), and sent away.
    pub(crate) fn count(&mut self, frame: FrameHead) -> Result<(), Abuse> {
        let (counts, budgets) = (&mut self.counts, &self.budgets);
        match frame.kind {
            kind::DATA => Ok(()),
            kind::HEADERS => {
                counts.window_updates = counts.window_updates.saturating_sub(1);
                (self.block_continuations, self.block_bytes) = (0, frame.len);
                add(&mut counts.heads, budgets.heads, Abuse::Heads)?;
                if frame.len > budgets.block_bytes { Err(Abuse::HeaderBlock) } else { Ok(()) }
            }
            kind::CONTINUATION => {
                self.block_bytes = self.block_bytes.saturating_add(frame.len);
                let of_block = budgets.continuations_of_block;
                add(&mut self.block_continuations, of_block, Abuse::Continuations)?;
                add(&mut counts.continuations, budgets.continuations, Abuse::Continuations)?;
                if self.block_bytes > budgets.block_bytes { Err(Abuse::HeaderBlock) } else { Ok(()) }
            }
            kind::RST_STREAM => {
                self.resets_in_all += 1;
                if self.resets_in_all > budgets.resets_in_all {
                    return Err(Abuse::Resets);
                }
                add(&mut counts.resets, budgets.resets, Abuse::Resets)
            }
            kind::PING => add(&mut counts.pings, budgets.pings, Abuse::Pings),
            kind::SETTINGS => add(&mut counts.settings, budgets.settings, Abuse::Settings),
            kind::WINDOW_UPDATE => {
                add(&mut counts.window_updates, budgets.window_updates, Abuse::WindowUpdates)
            }
            kind::PRIORITY | kind::PRIORITY_UPDATE => {
                add(&mut counts.priorities, budgets.priorities, Abuse::Priorities)
            }
            _ => add(&mut counts.unknown, budgets.unknown, Abuse::Unknown),
        }
    }

    /// DATA that carries nothing and ends nothing.
    ///
    /// # Errors
    /// See [`Meter::count`].
    pub(crate) fn count_empty_data(&mut self) -> Result<(), Abuse> {
        add(&mut self.counts.empty_data, self.budgets.empty_data, Abuse::EmptyData)
    }

    /// We reset a stream.
    ///
    /// # Errors
    /// See [`Meter::count`].
    pub(crate) fn count_reset(&mut self, code: Code) -> Result<(), Abuse> {
        if !code.blames_peer() {
            return Ok(());
        }
        add(&mut self.counts.resets_emitted, self.budgets.resets_emitted, Abuse::ResetsEmitted)
    }

    /// We send DATA, which the peer has reason to answer.
    pub(crate) fn credit_data(&mut self) {
        self.counts.pings = self.counts.pings.saturating_sub(1);
        self.counts.window_updates = self.counts.window_updates.saturating_sub(UPDATES_PER_DATA);
    }

    /// We send a head.
    pub(crate) fn credit_head(&mut self) {
        self.counts.heads = self.counts.heads.saturating_sub(HEADS_PER_HEAD);
    }
}

fn add(count: &mut u32, budget: u32, abuse: Abuse) -> Result<(), Abuse> {
    *count = count.saturating_add(1);
    if *count > budget { Err(abuse) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_halved() {
        let start = Instant::now();
        let mut meter = Meter::new(Budgets::default());
        let ping = FrameHead { len: 8, kind: kind::PING, flags: 0, stream: 0 };
        meter.decay(start);
        (0..100).for_each(|_| meter.count(ping).unwrap());
        assert_eq!(meter.count(ping), Err(Abuse::Pings));
        meter.decay(start + Duration::from_millis(999));
        assert_eq!(meter.count(ping), Err(Abuse::Pings));
        meter.decay(start + Duration::from_millis(2_500));
        (0..75).for_each(|_| meter.count(ping).unwrap());
        assert_eq!(meter.count(ping), Err(Abuse::Pings));
        // The half second that was left over counts.
        meter.decay(start + Duration::from_millis(3_000));
        assert_eq!(meter.count(ping), Ok(()));
        meter.decay(start + Duration::from_secs(1 << 40));
        (0..100).for_each(|_| meter.count(ping).unwrap());
    }
}
