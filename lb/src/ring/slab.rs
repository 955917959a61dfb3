//! Operations in flight. Owns whatever the kernel can see until the last completion.

use std::{collections::VecDeque, num::NonZeroU32, task::Waker};

use super::{Group, SendBuf, Socket};

/// What an operation keeps alive.
#[derive(Debug)]
pub(super) enum Held {
    /// A socket that is polled.
    Socket(Socket),
    /// A socket that receives into a buffer the kernel picks from the group.
    Picking(Socket, Group),
    /// A socket that receives into this memory.
    Receiving(Socket, Vec<u8>),
    /// A socket and what it sends.
    Sending(Socket, SendBuf),
    /// A socket and the address it connects to.
    Connecting(Socket, Box<socket2::SockAddr>),
    /// A listening socket.
    Listener(Socket),
    /// An eventfd and the word it is read into.
    Event(std::rc::Rc<std::os::fd::OwnedFd>, Box<[u8; 8]>),
}

impl Held {
    pub(super) fn group(&self) -> Option<Group> {
        match self {
            Self::Picking(_, group) => Some(*group),
            _ => None,
        }
    }
}

enum State {
    /// In flight; the waker of whoever polled it.
    Waiting(Option<Waker>),
    /// Complete, result not yet taken.
    Done { result: i32, flags: u32 },
    /// In flight and many-shot; a pointer, as there are few of them and many of the others.
    Stream(Box<Results>),
    /// In flight, nobody wants it.
    Orphan,
}

/// Results of a many-shot operation: they queue up until `ended`.
#[derive(Default)]
struct Results {
    queue: VecDeque<(i32, u32)>,
    waker: Option<Waker>,
    ended: bool,
}

struct Entry {
    generation: NonZeroU32,
    state: State,
    held: Option<Held>,
}

/// Index and generation, as they travel in user_data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// 31 bits, so that no key equals IGNORED.
    generation: NonZeroU32,
    index: u32,
}

impl Key {
    pub(super) fn user_data(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.index)
    }

    fn of(user_data: u64) -> Option<Self> {
        Some(Self { generation: NonZeroU32::new((user_data >> 32) as u32)?, index: user_data as u32 })
    }

    fn index(self) -> usize {
        self.index as usize
    }
}

/// What a completion led to.
pub(super) enum Settled {
    /// Somebody waits; wake them.
    Woke(Option<Waker>),
    /// Nobody wants it; free what it held (present with the last completion, and for buffer accounting before).
    Orphan(Option<Held>),
    /// No such operation.
    Stray,
}

/// What a poll of an operation finds.
pub(super) enum Polled {
    Pending,
    Ready { result: i32, flags: u32, held: Option<Held> },
}

/// All operations of one ring.
#[derive(Default)]
pub(super) struct Slab {
    entries: slab::Slab<Entry>,
    /// Of the operation that was started last, less one.
    generation: u32,
}

/// Generations before they repeat.
const GENERATIONS: u32 = 0x7fff_ffff;

impl Slab {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, held: Held, stream: bool) -> Key {
        self.generation = (self.generation + 1) % GENERATIONS;
        let generation = NonZeroU32::MIN.saturating_add(self.generation);
        let state = if stream { State::Stream(Box::default()) } else { State::Waiting(None) };
        let index = self.entries.insert(Entry { generation, state, held: Some(held) }) as u32;
        Key { generation, index }
    }

    fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(key.index()).filter(|entry| entry.generation == key.generation)
    }

    /// The memory an operation owns, so that its submission can point to it. It does not move until removed:
    /// every variant holds its payload behind a heap allocation or as a plain descriptor.
    pub(super) fn held_mut(&mut self, key: Key) -> Option<&mut Held> {
        self.entry(key).and_then(|entry| entry.held.as_mut())
    }

    pub(super) fn complete(&mut self, user_data: u64, result: i32, flags: u32, more: bool) -> Settled {
        let Some(key) = Key::of(user_data) else { return Settled::Stray };
        let Some(entry) = self.entry(key) else { return Settled::Stray };
        match &mut entry.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                entry.state = State::Done { result, flags };
                Settled::Woke(waker)
            }
            State::Stream(results) => {
                results.queue.push_back((result, flags));
                results.ended = !more;
                Settled::Woke(results.waker.take())
            }
            State::Orphan if more => {
                // An accept that was cancelled may still hand out descriptors: they must be closed.
                let listener = match &entry.held {
                    Some(Held::Listener(socket)) => Some(Held::Listener(socket.clone())),
                    _ => None,
                };
                Settled::Orphan(listener)
            }
            State::Orphan => Settled::Orphan(self.entries.remove(key.index()).held),
            State::Done { .. } => Settled::Stray,
        }
    }

    pub(super) fn is_done(&mut self, key: Key) -> bool {
        match self.entry(key).map(|entry| &entry.state) {
            Some(State::Waiting(_) | State::Orphan) => false,
            Some(State::Stream(results)) => results.ended || !results.queue.is_empty(),
            Some(State::Done { .. }) | None => true,
        }
    }

    pub(super) fn poll(&mut self, key: Key, waker: &Waker) -> Polled {
        let Some(entry) = self.entry(key) else { return Polled::Pending };
        match &mut entry.state {
            State::Waiting(waiting) => keep(waiting, waker),
            State::Stream(results) => keep(&mut results.waker, waker),
            State::Done { .. } | State::Orphan => {}
        }
        match &mut entry.state {
            State::Waiting(_) | State::Orphan => Polled::Pending,
            State::Done { result, flags } => {
                let (result, flags) = (*result, *flags);
                let held = self.entries.remove(key.index()).held;
                Polled::Ready { result, flags, held }
            }
            State::Stream(results) => match results.queue.pop_front() {
                None => Polled::Pending,
                Some((result, flags)) => {
                    let last = results.ended && results.queue.is_empty();
                    let held = if last { self.entries.remove(key.index()).held } else { None };
                    Polled::Ready { result, flags, held }
                }
            },
        }
    }

    /// How a completed operation went, without taking it; `None` while it is in flight. `waker` is woken then.
    pub(super) fn peek(&mut self, key: Key, waker: &Waker) -> Option<i32> {
        match &mut self.entry(key)?.state {
            State::Waiting(waiting) => {
                keep(waiting, waker);
                None
            }
            State::Done { result, .. } => Some(*result),
            State::Stream(_) | State::Orphan => None,
        }
    }

    /// Nobody wants the operation any more.
    pub(super) fn abandon(&mut self, key: Key) -> Abandoned {
        let Some(entry) = self.entry(key) else { return Abandoned::default() };
        match std::mem::replace(&mut entry.state, State::Orphan) {
            State::Orphan => Abandoned { flying: true, ..Abandoned::default() },
            State::Waiting(waker) => Abandoned { flying: true, waker, ..Abandoned::default() },
            State::Done { result, flags } => {
                let held = self.entries.remove(key.index()).held;
                Abandoned { results: vec![(result, flags)], held, ..Abandoned::default() }
            }
            State::Stream(results) => {
                let Results { queue, waker, ended } = *results;
                let held = match (ended, &entry.held) {
                    (true, _) => self.entries.remove(key.index()).held,
                    (false, Some(Held::Listener(socket))) => Some(Held::Listener(socket.clone())),
                    (false, _) => None,
                };
                Abandoned { flying: !ended, results: queue.into(), held, waker }
            }
        }
    }

    /// Operations that somebody still wants.
    pub(super) fn wanted(&self) -> Vec<Key> {
        let wanted = self.entries.iter().filter(|(_, entry)| !matches!(entry.state, State::Orphan));
        wanted.map(|(index, entry)| Key { generation: entry.generation, index: index as u32 }).collect()
    }
}

fn keep(waiting: &mut Option<Waker>, waker: &Waker) {
    if !waiting.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *waiting = Some(waker.clone());
    }
}

/// What an abandoned operation leaves. All of it is dropped when the slab is free again: its drop may reach back
/// into the ring.
#[derive(Default)]
pub(super) struct Abandoned {
    /// Still in flight: cancel it.
    pub(super) flying: bool,
    /// Completions that nobody took.
    pub(super) results: Vec<(i32, u32)>,
    pub(super) held: Option<Held>,
    pub(super) waker: Option<Waker>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{IGNORED, Ring};

    #[test]
    fn generations_wrap_below_the_reserved_key() {
        let ring = Ring::new().unwrap();
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Socket::new(&ring, one.into());
        let mut slab = Slab { generation: GENERATIONS - 2, ..Slab::default() };
        let keys: Vec<_> = (0..3).map(|_| slab.insert(Held::Socket(socket.clone()), false)).collect();
        assert_eq!(keys.iter().map(|key| key.generation.get()).collect::<Vec<_>>(), [0x7fff_ffff, 1, 2]);
        assert!(keys.iter().all(|key| key.user_data() != IGNORED));
        // A place that is used again is not taken for what stood there before.
        assert!(matches!(slab.complete(keys[1].user_data(), 0, 0, false), Settled::Woke(None)));
        assert!(slab.abandon(keys[1]).held.is_some());
        let next = slab.insert(Held::Socket(socket), false);
        assert_eq!(next.index(), keys[1].index());
        assert!(matches!(slab.complete(keys[1].user_data(), 0, 0, false), Settled::Stray));
        assert!(!slab.is_done(next) && slab.is_done(keys[1]));
    }
}
