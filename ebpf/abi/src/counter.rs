//! Counters that are not reasons.

/// Entry of `VIP_TRAFFIC` and `BACKEND_TRAFFIC`, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets forwarded.
    pub packets: u64,
    /// Bytes forwarded, as they came in, from the Ethernet header on.
    pub bytes: u64,
    /// SYNs forwarded; for UDP, flows recorded while a slot moves.
    pub new_flows: u64,
}

const _: () = assert!(size_of::<Traffic>() == 24);

/// The entry of `ANSWERS`, per CPU. Written by the packet path alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Tick that it is for.
    pub tick: u32,
    /// What was taken out of it.
    pub spent: u32,
}

const _: () = assert!(size_of::<Budget>() == 8);

/// Index of map `FLOW_EVENTS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// A record was written.
    Recorded = 0,
    /// A live record chose the backend.
    Followed = 1,
    /// Unrecorded packet in an open slot went to `previous`.
    UnrecordedToPrevious = 2,
    /// Unrecorded packet in a closed slot went to the owner.
    UnrecordedToOwner = 3,
    /// The remembered or previous backend is down; the owner took over.
    RepickedDown = 4,
    /// The flow table was full.
    InsertRefused = 5,
    /// This core's insert budget of the tick was spent.
    BudgetSpent = 6,
    /// The slot is being swept; nothing is recorded for a moment.
    InsertPaused = 7,
    /// The remembered or previous backend has left; the owner took over.
    RepickedGone = 8,
}

impl FlowEvent {
    /// All, in index order.
    pub const ALL: [Self; 9] = [
        Self::Recorded,
        Self::Followed,
        Self::UnrecordedToPrevious,
        Self::UnrecordedToOwner,
        Self::RepickedDown,
        Self::InsertRefused,
        Self::BudgetSpent,
        Self::InsertPaused,
        Self::RepickedGone,
    ];

    /// Name in metrics and `lb show`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Followed => "followed",
            Self::UnrecordedToPrevious => "unrecorded-to-previous",
            Self::UnrecordedToOwner => "unrecorded-to-owner",
            Self::RepickedDown => "repicked-down",
            Self::InsertRefused => "insert-refused",
            Self::BudgetSpent => "budget-spent",
            Self::InsertPaused => "insert-paused",
            Self::RepickedGone => "repicked-gone",
        }
    }
}
