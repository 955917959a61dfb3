//! What holds before any VIP is looked at, in the order of a sync: lists, lengths of prefixes, limits.

use lb_abi::{
    lengths::{DENY_V4, DENY_V6, LISTS, Lengths, VIP_V4, VIP_V6},
    meta::{FLAG_DENY_V4, FLAG_DENY_V6, FLAG_LIMITED, FLAG_WIDE_VIPS, Meta},
};

use super::{
    super::{
        desired::{Checked, Desired},
        error::Result,
        maps::Lists,
        store::Store,
        wide,
    },
    Listed, Sync,
};

impl Sync {
    /// What is new is there before packets are told to look for it; what is gone goes after they no longer do.
    pub(super) fn put_guard(&mut self, store: &mut impl Store, desired: &Desired) -> Result<()> {
        let Desired { deny, allow, guard_key, .. } = desired;
        let wanted = Listed { key: *guard_key, deny: deny.clone(), allow: allow.clone() };
        if self.guard.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.guard = None;
        let lists = Lists::of(*guard_key, deny, allow);
        let others = Meta { flags: self.meta.flags & !(FLAG_DENY_V4 | FLAG_DENY_V6), ..self.meta };
        if others.guard_key != *guard_key {
            // Words of another key mean nothing, and would only take room.
            self.put_meta(store, Meta { guard_key: *guard_key, ..others })?;
            store.expel_sources(&Lists::default());
        }
        store.admit_sources(&lists)?;
        let lengths = self.put_lengths(store, [DENY_V4, DENY_V6], lists.lengths())?;
        let flag = |flag: u32, is_v4: bool| {
            if deny.iter().any(|net| net.addr().is_ipv4() == is_v4) { flag } else { 0 }
        };
        let flags = others.flags | flag(FLAG_DENY_V4, true) | flag(FLAG_DENY_V6, false);
        self.put_meta(store, Meta { flags, lengths, ..self.meta })?;
        store.expel_sources(&lists);
        self.guard = Some(wanted);
        Ok(())
    }

    /// Tells packets of keys beyond exact ones, when these are there; before others go.
    pub(super) fn put_wide(&mut self, store: &mut impl Store, checked: &Checked<'_>) -> Result<()> {
        let keys = || checked.keys.keys().chain(checked.echo.keys());
        let lengths = self.put_lengths(store, [VIP_V4, VIP_V6], &wide::lengths(keys())?)?;
        let flag = if wide::is_wide(keys()) { FLAG_WIDE_VIPS } else { 0 };
        self.put_meta(store, Meta { flags: self.meta.flags & !FLAG_WIDE_VIPS | flag, lengths, ..self.meta })
    }

    /// Writes the lengths of two lists. Gives back which copies of all lists are to be read then.
    fn put_lengths(
        &self,
        store: &mut impl Store,
        lists: [usize; 2],
        wanted: &[Lengths; 2],
    ) -> Result<[u8; LISTS]> {
        let mut copies = self.meta.lengths;
        for (list, wanted) in lists.into_iter().zip(wanted) {
            copies[list] = store.put_lengths(list, copies[list], wanted)?;
        }
        Ok(copies)
    }

    /// The flag goes up after the limits are there.
    pub(super) fn put_limits(&mut self, store: &mut impl Store, desired: &Desired) -> Result<()> {
        let flag = if desired.limits.is_some() { FLAG_LIMITED } else { 0 };
        if let Some(limits) = &desired.limits {
            store.put_limits(limits)?;
        }
        self.put_meta(store, Meta { flags: self.meta.flags & !FLAG_LIMITED | flag, ..self.meta })
    }
}
