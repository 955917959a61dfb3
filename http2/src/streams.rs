//! Streams: a slot for each, found by the stream's number or by a handle.
//!
//! A stream's two ways go on each for itself (RFC 9113, 5.1, cut in two); a reset, of either side, ends both:
//!
//! ```text
//!  what is received:   Head (of a client: until a final head) --> Body --> Ended
//!  what is sent:       Head (of a server: until a final head) --> Body --> Ended
//!
//!  both Ended --> it does not count any more --> the caller holds nothing of it --> forgotten
//! ```

use std::fmt;

/// A stream of one connection, as long as it is not forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    id: u32,
    slot: u32,
}

impl Stream {
    /// Its number on the wire (RFC 9113, 5.1.1).
    pub const fn id(self) -> u32 {
        self.id
    }

    /// A small number that no other stream has at the same time: a place in a list of the caller's.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({} in {})", self.id, self.slot)
    }
}

/// How far a direction of a stream is (RFC 9113, 5.1, in two halves).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The head, or another one after interim heads.
    Head,
    /// DATA or trailers.
    Body,
    /// Nothing.
    Ended,
}

/// What a stream waits for to send more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Nothing,
    /// Its own window.
    Window,
    /// The connection's, or room behind what is to be sent.
    Turn,
}

/// All that is known of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// 0: the slot is free.
    id: u32,
    /// What comes next from the peer, and from us.
    pub(crate) receive: Way,
    pub(crate) send: Way,
    pub(crate) want: Want,
    /// It stands in line for its turn, whether it still wants that or not.
    pub(crate) is_queued: bool,
    /// The request's method is HEAD: its response has no content, whatever it says.
    pub(crate) was_head: bool,
    /// The request's method is CONNECT: what says how long it is means nothing.
    pub(crate) is_tunnel: bool,
    /// It counts among the streams that go on.
    pub(crate) is_active: bool,
    /// What we may send. Less than 0 where the peer has thought better of it (RFC 9113, 6.9.2).
    pub(crate) send_window: i32,
    /// What the peer may send; see there.
    pub(crate) receive_window: i32,
    /// Bytes that have come and that the caller holds.
    pub(crate) held: u32,
    /// Bytes that the caller has released and that the peer was not told of.
    pub(crate) untold: u32,
    /// Bytes of content still to come, where that was said.
    pub(crate) left: Option<u64>,
}

impl Slot {
    pub(crate) const fn new(receive: Way, send: Way, send_window: i32, receive_window: i32) -> Self {
        Self {
            id: 0,
            receive,
            send,
            want: Want::Nothing,
            is_queued: false,
            was_head: false,
            is_tunnel: false,
            is_active: true,
            send_window,
            receive_window,
            held: 0,
            untold: 0,
            left: None,
        }
    }
}

/// All streams that are not forgotten.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots and 1, each at the place that its stream's number names or, where that is taken, behind it; 0: nothing.
    /// Twice as many places as slots, in a power of two.
    places: Vec<u32>,
    /// Those that go on.
    active: u32,
}

impl Streams {
    /// Streams that go on, as RFC 9113, 5.1.2 counts.
    pub(crate) const fn active(&self) -> u32 {
        self.active
    }

    /// Whether none is kept.
    pub(crate) const fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    pub(crate) fn insert(&mut self, id: u32, slot: Slot) -> Stream {
        let new = Slot { id, ..slot };
        self.active += u32::from(new.is_active);
        let at = match self.free.pop() {
            Some(at) => at,
            None => self.slots.len() as u32,
        };
        match self.slots.get_mut(at as usize) {
            Some(slot) => *slot = new,
            None => self.slots.push(new),
        }
        if self.places.len() < 2 * self.slots.len() {
            self.grow();
        } else {
            self.put(id, at);
        }
        Stream { id, slot: at }
    }

    #[cold]
    fn grow(&mut self) {
        let len = (4 * self.slots.len()).next_power_of_two().max(8);
        self.places.clear();
        self.places.resize(len, 0);
        for at in 0..self.slots.len() {
            let id = self.slots[at].id;
            if id != 0 {
                self.put(id, at as u32);
            }
        }
    }

    const fn home(&self, id: u32) -> usize {
        (id as usize >> 1) & (self.places.len() - 1)
    }

    fn put(&mut self, id: u32, slot: u32) {
        let mask = self.places.len() - 1;
        let mut place = self.home(id);
        while self.places[place] != 0 {
            place = (place + 1) & mask;
        }
        self.places[place] = slot + 1;
    }

    /// The place of a stream.
    #[inline]
    fn place(&self, id: u32) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let mut place = self.home(id);
        loop {
            let at = self.places[place].checked_sub(1)?;
            if self.slots[at as usize].id == id {
                return Some(place);
            }
            place = (place + 1) & mask;
        }
    }

    /// The stream with a number.
    #[inline]
    pub(crate) fn find(&self, id: u32) -> Option<Stream> {
        let place = self.place(id)?;
        Some(Stream { id, slot: self.places[place] - 1 })
    }

    #[inline]
    pub(crate) fn get(&self, stream: Stream) -> Option<&Slot> {
        self.slots.get(stream.slot as usize).filter(|slot| slot.id == stream.id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, stream: Stream) -> Option<&mut Slot> {
        self.slots.get_mut(stream.slot as usize).filter(|slot| slot.id == stream.id)
    }

    /// The stream does not go on.
    pub(crate) fn deactivate(&mut self, stream: Stream) {
        if let Some(slot) = self.get_mut(stream)
            && std::mem::replace(&mut slot.is_active, false)
        {
            self.active -= 1;
        }
    }

    /// Forgets a stream, and gives what was known of it.
    pub(crate) fn remove(&mut self, stream: Stream) -> Option<Slot> {
        let removed = *self.get(stream)?;
        self.deactivate(stream);
        if let Some(place) = self.place(stream.id) {
            self.close_gap(place);
        }
        self.slots[stream.slot as usize].id = 0;
        self.free.push(stream.slot);
        Some(removed)
    }

    /// Moves those back that stand behind a place only because it was taken.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.places.len() - 1;
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            let Some(at) = self.places[place].checked_sub(1) else { break };
            let home = self.home(self.slots[at as usize].id);
            // Whether its home is not between the gap and where it stands.
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(gap) & mask) {
                self.places[gap] = at + 1;
                gap = place;
            }
        }
        self.places[gap] = 0;
    }

    /// All that are not forgotten.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.id != 0)
    }

    /// The same, with their handles.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Stream, &mut Slot)> {
        let slots = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.id != 0);
        slots.map(|(at, slot)| (Stream { id: slot.id, slot: at as u32 }, slot))
    }

    /// One that goes on, with a number beyond `last`.
    pub(crate) fn find_active_beyond(&self, last: u32) -> Option<Stream> {
        let at = self.slots.iter().position(|slot| slot.is_active && slot.id > last)?;
        Some(Stream { id: self.slots[at].id, slot: at as u32 })
    }

    /// Gives back the memory, if none is kept.
    pub(crate) fn trim(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + (self.free.capacity() + self.places.capacity()) * 4
    }
}

/// How a stream was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// We have reset it: what is under way is passed over (RFC 9113, 5.1).
    ByUs,
    /// The peer has ended or reset it.
    ByPeer,
    /// Long ago, or never opened.
    Unknown,
}

/// The streams that were closed last.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    /// Numbers, with the bit that is reserved set where we have reset it.
    ids: [u32; RECENT],
    next: u8,
}

const RECENT: usize = 32;
const BY_US: u32 = 1 << 31;

impl Recent {
    pub(crate) const fn new() -> Self {
        Self { ids: [0; RECENT], next: 0 }
    }

    pub(crate) const fn push(&mut self, id: u32, how: Closed) {
        let mark = if matches!(how, Closed::ByUs) { BY_US } else { 0 };
        self.ids[self.next as usize % RECENT] = id | mark;
        self.next = self.next.wrapping_add(1);
    }

    pub(crate) fn find(&self, id: u32) -> Closed {
        // It may have been closed by its client, and reset by us for what came then.
        let (mut by_us, mut by_peer) = (false, false);
        for entry in self.ids {
            by_us |= entry == id | BY_US;
            by_peer |= entry == id;
        }
        match (by_us, by_peer) {
            (true, _) => Closed::ByUs,
            (false, true) => Closed::ByPeer,
            (false, false) => Closed::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const NEW: Slot = Slot::new(Way::Head, Way::Head, 0, 0);

    proptest! {
        #[test]
        fn each_is_found_until_it_is_forgotten(
            steps in prop::collection::vec((any::<bool>(), 0..200_u32), 0..200),
        ) {
            let (mut streams, mut expected) = (Streams::default(), BTreeMap::new());
            for (adds, id) in steps {
                let id = 2 * id + 1;
                if adds && !expected.contains_key(&id) {
                    let stream = streams.insert(id, NEW);
                    prop_assert!(expected.values().all(|other: &Stream| other.slot != stream.slot));
                    expected.insert(id, stream);
                } else if let Some(stream) = expected.remove(&id) {
                    prop_assert!(streams.remove(stream).is_some());
                    prop_assert!(streams.get(stream).is_none() && streams.remove(stream).is_none());
                }
                prop_assert_eq!(streams.active() as usize, expected.len());
                for id in (0..200).map(|id| 2 * id + 1) {
                    prop_assert_eq!(streams.find(id), expected.get(&id).copied());
                }
            }
            prop_assert_eq!(streams.iter_mut().count(), expected.len());
            prop_assert_eq!(streams.is_empty(), expected.is_empty());
        }
    }

    #[test]
    fn the_last_that_were_closed() {
        let mut recent = Recent::new();
        (1..=300).for_each(|id| recent.push(id, if id % 2 == 0 { Closed::ByUs } else { Closed::ByPeer }));
        assert_eq!(
            [268, 269, 299, 300].map(|id| recent.find(id)),
            [Closed::Unknown, Closed::ByPeer, Closed::ByPeer, Closed::ByUs,]
        );
    }

    #[test]
    fn a_stream_is_small() {
        assert!(size_of::<Slot>() <= 48, "{}", size_of::<Slot>());
    }
}
