//! Map `FLOWS`: places of a bucket, found, taken, read and written in whole words (see [`lb_abi::flow`]).

use core::{
    arch::asm,
    mem::{offset_of, size_of},
    ptr,
};

use lb_abi::{
    flow::{BUCKET_LEN, CLOSING, FlowKey, FlowRecord},
    tag::FlowTag,
};
use lb_ebpf::env::FlowCell;

use crate::maps;

/// Words of a key.
const KEY_WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();

/// The place of a flow.
#[inline(always)]
pub(super) fn find(tag: FlowTag) -> Option<Record> {
    let [one, two] = tag.buckets();
    let first = Bucket::at(one)?;
    match first.find(tag) {
        Some(at) => Some(first.record(at)),
        None => {
            let second = Bucket::at(two)?;
            second.find(tag).map(|at| second.record(at))
        }
    }
}

/// The same by way of a function, as those of `super::apart`: what the verifier sees of a place is its number, and not
/// each way to it.
#[inline(always)]
pub(super) fn find_apart(tag: FlowTag) -> Option<Record> {
    let place = (lb_flow_place(tag.0) as u32).checked_sub(1)?;
    let bucket = Bucket::at(place / BUCKET_LEN as u32)?;
    Some(bucket.record(place as usize % BUCKET_LEN))
}

/// [`begin`] by way of a function.
#[inline(always)]
pub(super) fn begin_apart(room: u32, tag: FlowTag, record: FlowRecord) -> Option<()> {
    if lb_begin_flow(room as u64, tag.0, record.to_word()) == 0 { None } else { Some(()) }
}

/// The place of a tag, counted from one; 0: it has none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_flow_place(tag: u64) -> u64 {
    let tag = FlowTag(tag);
    let [one, two] = tag.buckets();
    match place(one, tag) {
        0 => place(two, tag),
        place => place,
    }
}

#[inline(always)]
fn place(index: u32, tag: FlowTag) -> u64 {
    let Some(bucket) = Bucket::at(index) else { return 0 };
    match bucket.find(tag) {
        Some(at) => index as u64 * BUCKET_LEN as u64 + at as u64 + 1,
        None => 0,
    }
}

/// [`begin`]; 0: nothing was written.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_begin_flow(room: u64, tag: u64, record: u64) -> u64 {
    let (tag, record) = (FlowTag(tag), FlowRecord::from_word(record));
    if begin(room as u32, tag, record).is_some() { 1 } else { 0 }
}

/// Takes a place for the flow in map `MOVING` and writes its record. None: no room, or the flow has a place by now.
#[inline(always)]
pub(super) fn begin(room: u32, tag: FlowTag, record: FlowRecord) -> Option<()> {
    let [one, two] = tag.buckets();
    let taken = Bucket::at(one)?.taken(tag)?;
    let index = if Bucket::at(two)?.taken(tag)? < taken { two } else { one };
    // Asked for once more: three pointers at once have no room in registers, and frames add up.
    let bucket = Bucket::at(index)?;
    let at = bucket.take(tag)?;
    if let (Some(place), Some(key)) =
        (maps::FLOW_KEYS.get_ptr_mut(index * BUCKET_LEN as u32 + at as u32), maps::MOVING.get(room))
    {
        let (from, to) = (ptr::from_ref(key).cast::<u64>(), place.cast::<u64>());
        let mut word = 0;
        while word < KEY_WORDS {
            // SAFETY: the place is ours since its tag is: nobody else writes its key. Control reads it once a record says
            // that it is there. Word by word, as a copy would be a call, and frames add up.
            unsafe { to.add(word).write_volatile(from.add(word).read_unaligned()) };
            word += 1;
        }
    }
    if bucket.record(at).begin(record) { Some(()) } else { None }
}

/// A value of map `FLOWS`.
#[derive(Clone, Copy)]
struct Bucket(*mut u64);

impl Bucket {
    #[inline(always)]
    fn at(index: u32) -> Option<Self> {
        maps::FLOWS.get_ptr_mut(index).map(|bucket| Self(bucket.cast()))
    }

    /// Tag of a place; 0: it is free.
    #[inline(always)]
    fn tag(self, at: usize) -> u64 {
        // SAFETY: one of the bucket's words; `at` is below its length wherever this is called. Volatile as in
        // `Kernel::slot`.
        unsafe { self.0.add(at).read_volatile() }
    }

    #[inline(always)]
    fn record(self, at: usize) -> Record {
        // SAFETY: as in `tag`; records follow the tags.
        Record(unsafe { self.0.add(BUCKET_LEN + at) })
    }

    #[inline(always)]
    fn find(self, tag: FlowTag) -> Option<usize> {
        let mut at = 0;
        while at < BUCKET_LEN {
            if self.tag(at) == tag.0 {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// How many places are taken; none, where the flow has one of them.
    #[inline(always)]
    fn taken(self, tag: FlowTag) -> Option<usize> {
        let (mut at, mut taken) = (0, 0);
        while at < BUCKET_LEN {
            let other = self.tag(at);
            if other == tag.0 {
                return None;
            }
            taken += (other != 0) as usize;
            at += 1;
        }
        Some(taken)
    }

    /// Takes the first place that is free; none, where there is none or the flow has one by now.
    #[inline(always)]
    fn take(self, tag: FlowTag) -> Option<usize> {
        let mut at = 0;
        while at < BUCKET_LEN {
            if self.tag(at) == 0 {
                // SAFETY: as in `tag`.
                match unsafe { exchange(self.0.add(at), tag.0) } {
                    0 => return Some(at),
                    other if other == tag.0 => return None,
                    _ => {}
                }
            }
            at += 1;
        }
        None
    }
}

/// Stores a word where there is none; what was there before, 0 if nothing was.
///
/// The instruction itself (Linux 5.12): Rust has no compare-and-exchange on this target.
///
/// # Safety
/// `word` is one of a value of map `FLOWS`.
#[inline(always)]
unsafe fn exchange(word: *mut u64, new: u64) -> u64 {
    let mut before = 0;
    // SAFETY: eight bytes on an eight-byte address, as the caller says.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") before,
        );
    }
    before
}

/// A record in its place, as one word.
pub(super) struct Record(*mut u64);

impl FlowCell for Record {
    #[inline(always)]
    fn load(&self) -> FlowRecord {
        // SAFETY: a word of an array's value, which the kernel keeps mapped while the program runs. The place may be
        // given to another flow once control has given it back, which it does only where no running program stores
        // (`lb::steering::settle`).
        FlowRecord::from_word(unsafe { self.0.read_volatile() })
    }

    #[inline(always)]
    fn store(&self, record: FlowRecord) {
        // SAFETY: as in `load`.
        unsafe { self.0.write_volatile(record.to_word()) };
    }

    #[inline(always)]
    fn begin(&self, record: FlowRecord) -> bool {
        // SAFETY: as in `load`.
        unsafe { exchange(self.0, record.to_word()) == 0 }
    }

    #[inline(always)]
    fn touch(&self, seen: u32) {
        // SAFETY: as in `load`; four aligned bytes of the word.
        unsafe { self.0.byte_add(offset_of!(FlowRecord, seen)).cast::<u32>().write_volatile(seen) };
    }

    #[inline(always)]
    fn close(&self) {
        // SAFETY: as in `load`; a byte of the word.
        unsafe { self.0.byte_add(offset_of!(FlowRecord, state)).cast::<u8>().write_volatile(CLOSING) };
    }
}

const _: () = assert!(size_of::<FlowRecord>() == size_of::<u64>());
