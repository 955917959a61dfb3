//! Planted bugs, for the simulation to find: what a worker would do wrong if a rule were missing. Outside tests there is none,
//! and the compiler knows.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// A kept connection is taken without a look at what came on it.
    TakesStale,
    /// A connection is kept although its request was not sent to its end.
    KeepsUnsent,
    /// A request that may not be done twice goes to a fresh connection, too, when a kept one was closed.
    RepeatsAnything,
    /// What breaks off is closed as if it were whole.
    EndsPolitely,
    /// A client that is silent may be so for ever.
    WaitsForEver,
    /// A failure is not counted for its listener.
    CountsNothing,
    /// Where no buffer is left, a connection is taken for broken.
    NeedsBuffers,
    /// A place of an exchange is not given back.
    KeepsPlace,
}

#[cfg(test)]
impl Mutant {
    /// All, each with a seed that found it once. Another will, when what happens under that seed has changed.
    pub(super) const ALL: [(Self, u64); 8] = [
        (Self::TakesStale, 2),
        (Self::KeepsUnsent, 49),
        (Self::RepeatsAnything, 14),
        (Self::EndsPolitely, 5),
        (Self::WaitsForEver, 4),
        (Self::CountsNothing, 2),
        (Self::NeedsBuffers, 1),
        (Self::KeepsPlace, 1),
    ];
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// On the calling thread, from now on.
#[cfg(test)]
pub(super) fn plant(mutant: Mutant) {
    PLANTED.set(Some(mutant));
}

/// Whether it is at work.
#[cfg(test)]
pub(super) fn is_planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// None is.
#[cfg(not(test))]
#[inline(always)]
pub(super) const fn is_planted(_: Mutant) -> bool {
    false
}
