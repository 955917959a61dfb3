//! How often something may be done per key, exact over all workers: a fixed table of buckets, each of which is one number.
//!
//! A bucket is its theoretical arrival time (GCRA; ITU-T I.371, annex A): the time until which what was taken is paid for. One
//! that lies in the past is full, as good as none, so its place is free for another key. Nothing is swept, nothing grows.
//!
//! A key has one of the four places of its set. Where four keys of a set are all in debt, a fifth shares the place of the one
//! that owes least: both are then held to one bucket, which is too strict for them and never too lax; such requests are
//! counted. Two workers that meet a new key in the same instant may give it two places: that costs one request, as from
//! then on all find the first.

use std::{
    hash::{BuildHasher, Hash},
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;

/// Places in all, of 16 bytes each: 1 MiB, which is there once any rate is limited.
const PLACES: usize = 1 << 16;
/// Places of one set: a cache line.
const WAYS: usize = 4;
/// Bits of an IPv6 address that tell one subscriber from another.
const SUBSCRIBER_BITS: u32 = 64;

/// One rate: so many at once, and one more for each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval_ns: u64,
    burst_ns: u64,
}

impl Rate {
    /// `burst` at least 1, `interval` at least a nanosecond.
    pub fn new(interval: Duration, burst: u32) -> Self {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { interval_ns, burst_ns: interval_ns.saturating_mul(u64::from(burst.saturating_sub(1))) }
    }
}

/// Whom a bucket is for; made by [`Rates::key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateKey(u64);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There was one left.
    Yes,
    /// There was none left, nor will be for so long.
    No(Duration),
}

/// Shared by all workers.
#[derive(Debug, Default)]
pub struct Rates {
    table: OnceLock<Table>,
    hasher: RandomState,
    /// Requests that shared a place.
    crowded: AtomicU64,
}

#[derive(Debug)]
struct Table {
    /// What times are counted from.
    epoch: Instant,
    sets: Box<[Set]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Place; WAYS]);

#[derive(Debug, Default)]
struct Place {
    /// 0: nobody's.
    key: AtomicU64,
    /// In nanoseconds since the epoch.
    paid_until: AtomicU64,
}

impl Rates {
    /// The key of `what` under `scope`, a name that keeps keys of different limits apart.
    pub fn key(&self, scope: &str, what: impl Hash) -> RateKey {
        RateKey(self.hasher.hash_one((scope, what)).max(1))
    }

    /// The key of a client: its IPv4 address, or the first half of its IPv6 address, all of which one subscriber has.
    pub fn key_of_address(&self, scope: &str, address: IpAddr) -> RateKey {
        match address.to_canonical() {
            IpAddr::V4(address) => self.key(scope, address),
            IpAddr::V6(address) => self.key(scope, address.to_bits() >> (u128::BITS - SUBSCRIBER_BITS)),
        }
    }

    /// Requests that shared a place with another key.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Relaxed)
    }

    /// Takes one, if there is one left.
    pub fn take(&self, key: RateKey, rate: Rate, now: Instant) -> Taken {
        let table = self
            .table
            .get_or_init(|| Table { epoch: now, sets: (0..PLACES / WAYS).map(|_| Set::default()).collect() });
        let now_ns = u64::try_from(now.saturating_duration_since(table.epoch).as_nanos()).unwrap_or(u64::MAX);
        let Set(places) = &table.sets[key.0 as usize % table.sets.len()];
        let place = find(places, key.0, now_ns).unwrap_or_else(|| {
            self.crowded.fetch_add(1, Relaxed);
            let [first, others @ ..] = places;
            let owes_less =
                |a: &&Place, b: &&Place| a.paid_until.load(Relaxed).cmp(&b.paid_until.load(Relaxed));
            others.iter().chain([first]).min_by(owes_less).unwrap_or(first)
        });
        place.take(rate, now_ns)
    }
}

/// The key's place: its own, or one that is free.
fn find(places: &[Place; WAYS], key: u64, now_ns: u64) -> Option<&Place> {
    // Another worker may be quicker to a place, but only so often.
    for _ in 0..=WAYS {
        if let Some(own) = places.iter().find(|place| place.key.load(Relaxed) == key) {
            return Some(own);
        }
        let free = places.iter().find(|place| place.is_free(now_ns))?;
        let owner = free.key.load(Relaxed);
        if free.is_free(now_ns) && free.key.compare_exchange(owner, key, Relaxed, Relaxed).is_ok() {
            return Some(free);
        }
    }
    None
}

impl Place {
    fn is_free(&self, now_ns: u64) -> bool {
        self.key.load(Relaxed) == 0 || self.paid_until.load(Relaxed) < now_ns
    }

    fn take(&self, rate: Rate, now_ns: u64) -> Taken {
        let mut wait_ns = 0;
        let taken = self.paid_until.fetch_update(Relaxed, Relaxed, |paid_until| {
            let paid_until = paid_until.max(now_ns);
            wait_ns = (paid_until - now_ns).saturating_sub(rate.burst_ns);
            (wait_ns == 0).then(|| paid_until.saturating_add(rate.interval_ns))
        });
        match taken {
            Ok(_) => Taken::Yes,
            Err(_) => Taken::No(Duration::from_nanos(wait_ns)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taken(rates: &Rates, key: RateKey, rate: Rate, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| rates.take(key, rate, now) == Taken::Yes).count()
    }

    #[test]
    fn a_burst_then_one_per_interval() {
        let (rates, start) = (Rates::default(), Instant::now());
        let rate = Rate::new(SECOND / 10, 5);
        let key = rates.key("a", 1);
        assert_eq!(taken(&rates, key, rate, start, 20), 5);
        assert_eq!(rates.take(key, rate, start), Taken::No(SECOND / 10));
        assert_eq!(rates.take(key, rate, start + SECOND / 20), Taken::No(SECOND / 20));
        assert_eq!(taken(&rates, key, rate, start + SECOND / 10, 20), 1);
        assert_eq!(taken(&rates, key, rate, start + SECOND, 20), 5, "no more than the burst");
        assert_eq!(taken(&rates, rates.key("b", 1), rate, start, 20), 5, "another limit's");
        assert_eq!(taken(&rates, rates.key("a", 2), rate, start, 20), 5, "another key");
    }

    #[test]
    fn a_subscriber_has_one_key_for_all_of_its_addresses() {
        let rates = Rates::default();
        let key = |text: &str| rates.key_of_address("a", text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    /// Places are enough for keys that come and go, and those that do not fit are held to less, not to more.
    #[test]
    fn a_flood_of_keys_gives_nobody_more() {
        let (rates, start) = (Rates::default(), Instant::now());
        let rate = Rate::new(SECOND, 2);
        for key in 0..PLACES as u32 * 2 {
            assert!(taken(&rates, rates.key("a", key), rate, start, 5) <= 2);
        }
        let crowded = rates.crowded();
        assert!(crowded > 0);
        // All have paid: everybody finds a place again.
        let later = start + SECOND * 60;
        for key in 0..200 {
            assert_eq!(taken(&rates, rates.key("b", key), rate, later, 5), 2);
        }
        assert_eq!(rates.crowded(), crowded);
    }

    #[test]
    fn it_is_exact_over_threads() {
        for round in 0..50 {
            let (rates, start) = (Rates::default(), Instant::now());
            let rate = Rate::new(SECOND, 1000);
            let key = rates.key("a", round);
            rates.take(key, rate, start);
            let all: usize = std::thread::scope(|scope| {
                let one = || scope.spawn(|| taken(&rates, key, rate, start, 700));
                [one(), one(), one()].map(|thread| thread.join().unwrap()).iter().sum()
            });
            assert_eq!(all, 999, "one was taken before");
        }
    }

    proptest! {
        /// Whatever comes when, no span of time has more than the burst and what it brings.
        #[test]
        fn no_span_has_more(waits in prop::collection::vec(0u64..400, 1..300), burst in 1u32..8) {
            let (rates, start) = (Rates::default(), Instant::now());
            let rate = Rate::new(Duration::from_millis(100), burst);
            let key = rates.key("a", 0);
            let (mut now, mut yes) = (0, Vec::new());
            for wait in waits {
                now += wait / 4;
                if rates.take(key, rate, start + Duration::from_millis(now)) == Taken::Yes {
                    yes.push(now);
                }
            }
            for (at, first) in yes.iter().enumerate() {
                for (more, last) in yes[at..].iter().enumerate() {
                    let count = more as u64 + 1;
                    prop_assert!(count <= u64::from(burst) + (last - first) / 100);
                }
            }
        }
    }
}
