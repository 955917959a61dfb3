//! Values in their place, which only a live witness writes.

use core::marker::PhantomData;

use lb_abi::{
    flow::{CLOSING, FlowRecord},
    limit::Allowance,
    trace::STEP_RECORD_LEFT,
};

use super::{Kind, Notes, Witness};
use crate::env::{AllowanceCell, Env, FlowCell};

/// A record that is read as it is, and written only before a live witness.
pub(super) struct Seen<'a, 'b, C, E, N, K> {
    pub(super) cell: C,
    pub(super) witness: &'a Witness<'b, E, N, K>,
}

impl<C: FlowCell, E: Env, N: Notes, K: Kind> Seen<'_, '_, C, E, N, K> {
    /// The record as it would be by now: before a dry witness it was never written.
    #[inline(always)]
    fn as_left(&self) -> FlowRecord {
        if K::LIVE {
            return self.cell.load();
        }
        let notes = self.witness.notes;
        notes.change(
            |trace| {
                if trace.steps & STEP_RECORD_LEFT != 0 { trace.record_left } else { trace.record_found }
            },
        )
    }
}

impl<C: FlowCell, E: Env, N: Notes, K: Kind> FlowCell for Seen<'_, '_, C, E, N, K> {
    #[inline(always)]
    fn load(&self) -> FlowRecord {
        self.cell.load()
    }

    #[inline(always)]
    fn store(&self, record: FlowRecord) {
        if K::LIVE {
            self.cell.store(record);
        }
        self.witness.left(record);
    }

    #[inline(always)]
    fn begin(&self, record: FlowRecord) -> bool {
        let begins = if K::LIVE { self.cell.begin(record) } else { true };
        if begins {
            self.witness.left(record);
        }
        begins
    }

    #[inline(always)]
    fn touch(&self, seen: u32) {
        if K::LIVE {
            self.cell.touch(seen);
        }
        self.witness.left(FlowRecord { seen, ..self.as_left() });
    }

    #[inline(always)]
    fn close(&self) {
        if K::LIVE {
            self.cell.close();
        }
        self.witness.left(FlowRecord { state: CLOSING, ..self.as_left() });
    }
}

/// An allowance that is read as it is, and written only before a live witness.
pub(super) struct Left<C, K> {
    pub(super) cell: C,
    pub(super) kind: PhantomData<K>,
}

impl<C: AllowanceCell, K: Kind> AllowanceCell for Left<C, K> {
    #[inline(always)]
    fn load(&self) -> Allowance {
        self.cell.load()
    }

    #[inline(always)]
    fn store(&self, allowance: Allowance) {
        if K::LIVE {
            self.cell.store(allowance);
        }
    }
}
