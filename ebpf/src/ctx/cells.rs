//! Values of maps that other cores or control store to at any time, each read and written in whole words.

use lb_abi::{
    guard::{BUCKET_LEN, GuardBucket},
    limit::Allowance,
};
use lb_ebpf::env::{AllowanceCell, Words};

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
