//! Values of maps that other cores or control store to at any time, each read and written in whole words.

use core::mem::{offset_of, size_of};

use lb_abi::{
    flow::{CLOSING, FlowRecord},
    guard::{BUCKET_LEN, GuardBucket},
    limit::Allowance,
};
use lb_ebpf::env::{AllowanceCell, FlowCell, Words};

/// A value of map `GUARD`.
pub(super) struct Listed(pub(super) *mut GuardBucket);

impl Words for Listed {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        if at >= BUCKET_LEN {
            return 0;
        }
        // SAFETY: one of the value's words, as just checked; control stores them whole. Volatile as in
        // `Kernel::slot`.
        unsafe { self.0.cast::<u64>().add(at).read_volatile() }
    }
}

/// A value of map `FLOWS` as one word: hash map values lie on eight-byte addresses.
pub(super) struct Record(pub(super) *mut u64);

impl FlowCell for Record {
    #[inline(always)]
    fn load(&self) -> FlowRecord {
        // SAFETY: a value of the map, which the kernel keeps mapped while the program runs. Preallocated
        // elements may be given to another flow once they are deleted (Documentation/bpf/map_hash.rst, v6.18):
        // nothing is ever replaced by an update, and control deletes only what no running program stores to
        // (`lb::steering::settle`).
        FlowRecord::from_word(unsafe { self.0.read_volatile() })
    }

    #[inline(always)]
    fn store(&self, record: FlowRecord) {
        // SAFETY: as in `load`.
        unsafe { self.0.write_volatile(record.to_word()) };
    }

    #[inline(always)]
    fn touch(&self, seen: u32) {
        // SAFETY: as in `load`; four aligned bytes of the value.
        unsafe { self.0.byte_add(offset_of!(FlowRecord, seen)).cast::<u32>().write_volatile(seen) };
    }

    #[inline(always)]
    fn close(&self) {
        // SAFETY: as in `load`; a byte of the value.
        unsafe { self.0.byte_add(offset_of!(FlowRecord, state)).cast::<u8>().write_volatile(CLOSING) };
    }
}

/// A value of map `NEW_FLOWS` as one word.
pub(super) struct Left(pub(super) *mut u64);

impl AllowanceCell for Left {
    #[inline(always)]
    fn load(&self) -> Allowance {
        // SAFETY: a value of the map, which the kernel keeps mapped while the program runs; an element given to another
        // source meanwhile lets one flow of it more or less through.
        Allowance::from_word(unsafe { self.0.read_volatile() })
    }

    #[inline(always)]
    fn store(&self, allowance: Allowance) {
        // SAFETY: as in `load`.
        unsafe { self.0.write_volatile(allowance.to_word()) };
    }
}

const _: () = assert!(size_of::<FlowRecord>() == size_of::<u64>());
