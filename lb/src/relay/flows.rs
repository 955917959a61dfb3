//! Flows of datagrams at one socket: who asks, at which address of ours, and when each has been silent for too long.
//!
//! ```text
//!                first datagram             answer
//!   (nobody) ------------------> asking -------------> answered
//!                                  |  unanswered_max      |  idle, or all replies are here
//!                                  +--------> gone <------+
//! ```
//! Time goes by ticks of a second. A flow stands in the place of the tick when it may be due; moving it later costs
//! nothing, as it is looked at when that tick comes. Never reads the clock.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use slab::Slab;

/// Length of a tick.
pub const TICK: Duration = Duration::from_secs(1);
/// Places of the wheel.
const PLACES: u64 = 64;

/// What tells flows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who asks.
    pub client: SocketAddr,
    /// The address of ours that is asked, where the socket has more than one.
    pub asked: Option<IpAddr>,
}

/// A flow, as long as it lives; never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId {
    index: usize,
    generation: u64,
}

/// How long flows last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silence both ways after which a flow ends.
    pub idle: Duration,
    /// The same before the first answer.
    pub unanswered: Duration,
}

#[derive(Debug)]
struct Entry<T> {
    key: FlowKey,
    generation: u64,
    /// Tick of the last datagram.
    seen: u64,
    is_answered: bool,
    /// Answers that are still to come, where their number is known.
    awaited: u64,
    value: T,
}

/// The flows of one socket, each with a value.
#[derive(Debug)]
pub struct Flows<T> {
    start: Instant,
    entries: Slab<Entry<T>>,
    by_key: HashMap<FlowKey, usize>,
    places: Vec<Vec<FlowId>>,
    /// Ticks up to this one were looked at.
    done: u64,
    generation: u64,
}

impl<T> Flows<T> {
    /// None yet.
    pub fn new(start: Instant) -> Self {
        let places = (0..PLACES).map(|_| Vec::new()).collect();
        Self { start, entries: Slab::new(), by_key: HashMap::new(), places, done: 0, generation: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The flow of a key, with its value.
    pub fn find(&self, key: &FlowKey) -> Option<(FlowId, &T)> {
        let &index = self.by_key.get(key)?;
        let entry = self.entries.get(index)?;
        Some((FlowId { index, generation: entry.generation }, &entry.value))
    }

    /// Begins a flow; there must be none of this key.
    pub fn insert(&mut self, key: FlowKey, value: T, now: Instant) -> FlowId {
        self.generation += 1;
        let (generation, seen) = (self.generation, self.tick(now));
        let index =
            self.entries.insert(Entry { key, generation, seen, is_answered: false, awaited: 0, value });
        let previous = self.by_key.insert(key, index);
        assert!(previous.is_none(), "a key has one flow");
        let id = FlowId { index, generation };
        self.queue(id, self.done.max(seen) + 1);
        id
    }

    /// The client has sent; `replies` answers are to come for it, 0 where that is not known.
    pub fn asked(&mut self, id: FlowId, replies: u64, now: Instant) {
        let tick = self.tick(now);
        if let Some(entry) = self.entry(id) {
            entry.seen = tick;
            entry.awaited = entry.awaited.saturating_add(replies);
        }
    }

    /// The backend has answered with `count` datagrams. True: nothing more is to come, and the flow may end.
    pub fn answered(&mut self, id: FlowId, count: u64, now: Instant) -> bool {
        let tick = self.tick(now);
        let Some(entry) = self.entry(id) else { return false };
        let was_awaited = entry.awaited > 0;
        entry.seen = tick;
        entry.is_answered = true;
        entry.awaited = entry.awaited.saturating_sub(count);
        was_awaited && entry.awaited == 0
    }

    /// Ends a flow.
    pub fn remove(&mut self, id: FlowId) -> Option<T> {
        self.entry(id)?;
        let entry = self.entries.try_remove(id.index)?;
        self.by_key.remove(&entry.key);
        Some(entry.value)
    }

    /// Ends one flow that has been silent for too long; call again until there is none.
    pub fn expire(&mut self, now: Instant, patience: &Patience) -> Option<T> {
        let now = self.tick(now);
        while self.done < now {
            let tick = self.done + 1;
            while let Some(id) = self.places[(tick % PLACES) as usize].pop() {
                let Some(entry) = self.entry(id) else { continue };
                let silence =
                    if entry.is_answered { patience.idle } else { patience.unanswered.min(patience.idle) };
                // Begun ticks do not count.
                let due = entry.seen + silence.as_secs_f64().ceil() as u64 + 1;
                if due <= tick {
                    return self.remove(id);
                }
                self.queue(id, due.min(tick + PLACES - 1));
            }
            self.done = tick;
        }
        None
    }

    /// Has every flow looked at by the next tick: patience has become shorter.
    pub fn hasten(&mut self) {
        let all: Vec<FlowId> = self.places.iter_mut().flat_map(std::mem::take).collect();
        self.places[((self.done + 1) % PLACES) as usize] = all;
    }

    /// Ends all of them.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.by_key.clear();
        self.places.iter_mut().for_each(Vec::clear);
        self.entries.drain().map(|entry| entry.value)
    }

    fn queue(&mut self, id: FlowId, tick: u64) {
        self.places[(tick % PLACES) as usize].push(id);
    }

    fn entry(&mut self, id: FlowId) -> Option<&mut Entry<T>> {
        self.entries.get_mut(id.index).filter(|entry| entry.generation == id.generation)
    }

    fn tick(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_secs() / TICK.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(port: u16) -> FlowKey {
        FlowKey { client: SocketAddr::from(([192, 0, 2, 1], port)), asked: None }
    }

    fn patience(idle: u64, unanswered: u64) -> Patience {
        Patience { idle: Duration::from_secs(idle), unanswered: Duration::from_secs(unanswered) }
    }

    #[test]
    fn a_key_is_the_client_and_the_address_it_asks() {
        let start = Instant::now();
        let mut flows = Flows::new(start);
        let at = |asked: &str| FlowKey { asked: Some(asked.parse().unwrap()), ..key(1) };
        for (key, value) in [(key(1), 1), (key(2), 2), (at("::1"), 3), (at("127.0.0.1"), 4)] {
            assert!(flows.find(&key).is_none());
            flows.insert(key, value, start);
            assert_eq!(flows.find(&key).map(|(_, value)| *value), Some(value));
        }
        let (id, _) = flows.find(&key(2)).unwrap();
        assert_eq!((flows.remove(id), flows.remove(id), flows.len()), (Some(2), None, 3));
        // Its place is used again, and its id is not.
        let next = flows.insert(key(2), 5, start);
        assert!(next.index == id.index && next != id && flows.remove(id).is_none());
        assert!(!flows.answered(id, 1, start));
        let mut all: Vec<_> = flows.drain().collect();
        all.sort_unstable();
        assert_eq!((all, flows.is_empty()), (vec![1, 3, 4, 5], true));
    }

    #[test]
    fn a_flow_whose_answers_are_known_ends_with_the_last() {
        let start = Instant::now();
        let mut flows = Flows::new(start);
        let id = flows.insert(key(1), (), start);
        flows.asked(id, 1, start);
        flows.asked(id, 1, start);
        assert!(!flows.answered(id, 1, start));
        assert!(flows.answered(id, 1, start));
        assert!(!flows.answered(id, 1, start), "nothing was awaited");
        flows.asked(id, 0, start);
        assert!(!flows.answered(id, 5, start));
    }

    #[test]
    fn shorter_patience_is_seen_at_once() {
        let start = Instant::now();
        let mut flows = Flows::new(start);
        for port in 0..9 {
            let id = flows.insert(key(port), port, start);
            flows.answered(id, 1, start);
        }
        let later = start + Duration::from_secs(10);
        assert_eq!(flows.expire(later, &patience(1000, 10)), None);
        flows.hasten();
        let soon = later + TICK;
        let gone = std::iter::from_fn(|| flows.expire(soon, &patience(2, 2))).count();
        assert_eq!((gone, flows.len()), (9, 0));
    }

    proptest! {
        /// Against a table without a wheel: none goes early, none stays later than a tick.
        #[test]
        fn each_ends_in_its_time(
            steps in prop::collection::vec((0u64..90, 0u16..6, 0u8..3), 1..60),
            idle in 1u64..200,
            unanswered in 1u64..20,
        ) {
            let start = Instant::now();
            let patience = patience(idle, unanswered);
            let mut flows = Flows::new(start);
            let mut model: HashMap<u16, (u64, bool)> = HashMap::new();
            let mut now = 0;
            for (wait, port, what) in steps {
                now += wait;
                let at = start + Duration::from_secs(now);
                let gone: Vec<u16> = std::iter::from_fn(|| flows.expire(at, &patience)).collect();
                let due = |(seen, answered): (u64, bool)| seen + if answered { idle } else { unanswered.min(idle) };
                for port in gone {
                    let state = model.remove(&port);
                    prop_assert!(state.is_some_and(|state| due(state) < now), "{} at {}: {:?}", port, now, state);
                }
                prop_assert!(model.values().all(|state| due(*state) + 1 >= now), "{:?} at {}", model, now);
                let id = match flows.find(&key(port)) {
                    Some((id, _)) => id,
                    None => flows.insert(key(port), port, at),
                };
                let state = model.entry(port).or_insert((now, false));
                state.0 = now;
                if what == 0 {
                    flows.answered(id, 1, at);
                    state.1 = true;
                } else {
                    flows.asked(id, 0, at);
                }
                prop_assert_eq!(flows.len(), model.len());
            }
        }
    }
}
