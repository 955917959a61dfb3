//! One worker's records on their way to the writer: a bounded queue with one sender and one receiver.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering, fence},
};

/// Bytes of records that wait for the writer; some thousand requests. All of it is touched in time, and stays in
/// a core's cache.
pub const QUEUE_BYTES: usize = 1 << 20;

/// Stands before each record.
type Len = u32;

/// The worker's end.
#[derive(Debug)]
pub struct Sender {
    producer: rtrb::Producer<u8>,
    is_asleep: Arc<AtomicBool>,
}

/// The writer's end.
#[derive(Debug)]
pub struct Receiver {
    consumer: rtrb::Consumer<u8>,
    /// A record that stood across the end of the ring, put together.
    whole: Vec<u8>,
}

/// A queue of `bytes`, its memory taken but not touched. `is_asleep` is of the receiver's thread, which may have
/// many queues.
pub fn queue(bytes: usize, is_asleep: Arc<AtomicBool>) -> (Sender, Receiver) {
    let (producer, consumer) = rtrb::RingBuffer::new(bytes);
    (Sender { producer, is_asleep }, Receiver { consumer, whole: Vec::new() })
}

impl Sender {
    /// Puts a record in. False: it is full, and the record is lost.
    pub fn push(&mut self, record: &[u8]) -> bool {
        const PREFIX: usize = size_of::<Len>();
        let Ok(len) = Len::try_from(record.len()) else { return false };
        let needed = PREFIX + record.len();
        if self.producer.cached_slots() < needed && self.producer.slots() < needed {
            return false;
        }
        // There is room, and nobody else takes it.
        self.producer.push_entire_slice(&len.to_le_bytes()).is_ok()
            && self.producer.push_entire_slice(record).is_ok()
    }

    /// Whether the receiver sleeps and has to be woken; after that it is told to nobody else. Asked after the
    /// records of a turn.
    pub fn must_wake(&self) -> bool {
        // Before it sleeps the receiver says so and then looks once more; one of the two sees the other.
        fence(Ordering::SeqCst);
        self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed)
    }
}

impl Receiver {
    /// Whether nothing waits. Asked after `is_asleep` was raised.
    pub fn is_empty(&self) -> bool {
        fence(Ordering::SeqCst);
        self.consumer.is_empty()
    }

    /// Whether nothing waits and nothing will: its sender is gone.
    pub fn is_over(&self) -> bool {
        // In this order: the last record was put in before the sender went.
        self.consumer.is_abandoned() && self.consumer.is_empty()
    }

    /// Gives the oldest record to `take`. False: there is none.
    pub fn pop(&mut self, take: impl FnOnce(&[u8])) -> bool {
        const PREFIX: usize = size_of::<Len>();
        let Ok(prefix) = self.consumer.read_chunk(PREFIX) else { return false };
        let (first, second) = prefix.as_slices();
        let mut len = [0; PREFIX];
        len.iter_mut().zip(first.iter().chain(second)).for_each(|(to, from)| *to = *from);
        // A prefix may be seen before its record.
        let Ok(chunk) = self.consumer.read_chunk(PREFIX + Len::from_le_bytes(len) as usize) else {
            return false;
        };
        match chunk.as_slices() {
            (first, []) => take(&first[PREFIX..]),
            (first, second) => {
                self.whole.clear();
                self.whole.extend_from_slice(first);
                self.whole.extend_from_slice(second);
                take(&self.whole[PREFIX..]);
            }
        }
        chunk.commit_all();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn record(at: u64) -> Vec<u8> {
        (0..at % 61).map(|byte| (at + byte) as u8).collect()
    }

    #[test]
    fn records_come_out_as_they_went_in_across_every_seam() {
        let (mut sender, mut receiver) = queue(97, Arc::default());
        let (mut sent, mut received) = (0, 0);
        while received < 5_000 {
            while sender.push(&record(sent)) {
                sent += 1;
            }
            assert!(sent > received, "a queue that is empty takes a record");
            for _ in 0..1 + received % 2 {
                let there = receiver.pop(|bytes| assert_eq!(bytes, record(received)));
                received += u64::from(there);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let (mut sender, mut receiver) = queue(16, Arc::default());
        assert!(!sender.push(&[1; 13]));
        assert!(sender.push(&[1; 12]));
        assert!(!sender.push(&[]));
        assert!(receiver.pop(|bytes| assert_eq!(bytes, [1; 12])));
        assert!(!receiver.pop(|_| unreachable!()));
        assert!(sender.push(&[]));
        assert!(receiver.pop(|bytes| assert!(bytes.is_empty())));
    }

    #[test]
    fn it_is_over_once_the_last_record_of_a_sender_that_went_was_taken() {
        let (mut sender, mut receiver) = queue(64, Arc::default());
        assert!(sender.push(&[1]) && !receiver.is_over());
        drop(sender);
        assert!(!receiver.is_over() && receiver.pop(|_| {}) && receiver.is_over());
    }

    #[test]
    fn one_sender_wakes_a_sleeper_once() {
        let is_asleep = Arc::new(AtomicBool::new(true));
        let (one, _one) = queue(64, is_asleep.clone());
        let (other, _other) = queue(64, is_asleep);
        assert!(one.must_wake());
        assert!(!other.must_wake() && !one.must_wake());
    }

    #[test]
    fn between_two_threads_none_is_lost() {
        let (mut sender, mut receiver) = queue(1 << 10, Arc::default());
        let pushing = thread::spawn(move || {
            for at in 0..200_000 {
                while !sender.push(&record(at)) {
                    thread::yield_now();
                }
            }
        });
        let mut at = 0;
        while at < 200_000 {
            match receiver.pop(|bytes| assert_eq!(bytes, record(at))) {
                true => at += 1,
                false => thread::yield_now(),
            }
        }
        pushing.join().unwrap();
        assert!(receiver.is_empty());
    }
}
