//! Planted bugs: what a core or control would do wrong if a rule were missing.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Records of any epoch are followed.
    EpochIgnored,
    /// A SYN does not look for a record.
    SynReadsNothing,
    /// `previous` is not read.
    PreviousIgnored,
    /// A full table makes room by forgetting a flow.
    Evicts,
    /// A record is not written, and nobody is told.
    InsertLost,
    /// A refusal is not told to control: slots close all the same.
    RefusalUntold,
    /// Control does not know that the table is full: nothing is swept.
    FullUntold,
    /// Control finds no stray.
    StraysUnseen,
    /// Control takes every record for ended.
    LiveTakenForEnded,
    /// Control never deletes.
    NothingDeleted,
    /// Ids are given to another backend as soon as the config does not name them.
    IdsReusedEarly,
}

impl Mutant {
    /// All, each with a seed that found it once. Another will, when what happens under that seed has changed.
    pub(crate) const ALL: [(Self, u64); 11] = [
        (Self::EpochIgnored, 19),
        (Self::SynReadsNothing, 1),
        (Self::PreviousIgnored, 1),
        (Self::Evicts, 1),
        (Self::InsertLost, 1),
        (Self::RefusalUntold, 1),
        (Self::FullUntold, 58),
        (Self::StraysUnseen, 1),
        (Self::LiveTakenForEnded, 1),
        (Self::NothingDeleted, 1),
        (Self::IdsReusedEarly, 24),
    ];
}
