//! Rings of buffers, as the kernel sees them.

use std::{
    collections::BTreeSet,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use crate::ring::driver::SharedRing;

/// What a buffer holds that nobody may read any more.
const SCRIBBLE: u8 = 0xa5;
const SCRIBBLE_BYTES_MAX: usize = 8 << 10;

struct Group {
    id: u16,
    entries: NonNull<BufRingEntry>,
    count: u16,
    head: u16,
    /// Tail as far as it was looked at.
    seen: u16,
    /// In the kernel's hands.
    ours: BTreeSet<u16>,
}

/// All that were registered.
#[derive(Default)]
pub(super) struct Groups(Vec<Group>);

impl Groups {
    pub(super) fn add(&mut self, ring: SharedRing) {
        let SharedRing { entries, count, group: id } = ring;
        let entries = NonNull::new(entries as *mut BufRingEntry).expect("memory of a ring of buffers");
        self.0.push(Group { id, entries, count, head: 0, seen: 0, ours: BTreeSet::new() });
    }

    fn group(&mut self, id: u16) -> &mut Group {
        self.0.iter_mut().find(|group| group.id == id).expect("a group that was registered")
    }

    /// Takes the next buffer: its number, memory and size.
    pub(super) fn pick(&mut self, group: u16) -> Option<(u16, *mut u8, usize)> {
        let group = self.group(group);
        if group.head == group.seen {
            return None;
        }
        let entry = group.entry(group.head);
        let picked = (entry.bid(), entry.addr() as *mut u8, entry.len() as usize);
        assert!(group.ours.remove(&picked.0), "a buffer in the kernel's hands");
        group.head = group.head.wrapping_add(1);
        Some(picked)
    }

    /// The buffer that was picked last was not used.
    pub(super) fn unpick(&mut self, group: u16, id: u16) {
        let group = self.group(group);
        group.head = group.head.wrapping_sub(1);
        group.ours.insert(id);
    }

    /// Takes over what was given back; nobody may read that any more.
    pub(super) fn take_back(&mut self) {
        for group in &mut self.0 {
            while group.seen != group.tail() {
                let entry = group.entry(group.seen);
                let (id, memory, size) = (entry.bid(), entry.addr() as *mut u8, entry.len() as usize);
                assert!(group.ours.insert(id), "buffer {id} of group {} was given back twice", group.id);
                // SAFETY: the buffer is the kernel's from its return on.
                unsafe { memory.write_bytes(SCRIBBLE, size.min(SCRIBBLE_BYTES_MAX)) };
                group.seen = group.seen.wrapping_add(1);
            }
        }
    }
}

impl Group {
    fn entry(&self, at: u16) -> &BufRingEntry {
        // SAFETY: the place is below the number of entries, which the ring's owner keeps as long as the ring.
        unsafe { self.entries.add(usize::from(at & (self.count - 1))).as_ref() }
    }

    fn tail(&self) -> u16 {
        // SAFETY: as `entry`; the tail lies in the first one and is aligned.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr());
            AtomicU16::from_ptr(tail.cast_mut()).load(Ordering::Acquire)
        }
    }
}
