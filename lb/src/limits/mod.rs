//! How many connections may be open, in all and per address, over all workers.
//!
//! Touched when a connection is accepted and when it closes, never per request.

use std::{
    hash::BuildHasher,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::{HashMap, fast::RandomState};

use crate::{config::Limits, model::reason::CloseReason};

const SHARDS: usize = 64;

/// Shared by all workers.
#[derive(Debug)]
pub struct Admission {
    open: AtomicUsize,
    by_address: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    hasher: RandomState,
}

impl Admission {
    /// Nobody is in.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            by_address: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
        })
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Lets a connection in, or says which limit it met.
    ///
    /// # Errors
    /// [`CloseReason::ConnectionsLimit`], [`CloseReason::ConnectionsPerIp`].
    pub fn admit(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Result<Permit, CloseReason> {
        let address = address.to_canonical();
        let mut shard = self.shard(address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = shard.get(&address).copied().unwrap_or(0);
        if count >= limits.connections_per_ip {
            return Err(CloseReason::ConnectionsPerIp);
        }
        // Never counted and taken back: a refused connection must not cost another one its place meanwhile.
        let one_more = |open| (open < limits.connections).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return Err(CloseReason::ConnectionsLimit);
        }
        shard.insert(address, count + 1);
        Ok(Permit { admission: self.clone(), address })
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        &self.by_address[self.hasher.hash_one(address) as usize % SHARDS]
    }
}

/// One connection's place; given back on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shard = self.admission.shard(self.address);
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = shard.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: fn() -> Limits = || Limits { connections: 3, connections_per_ip: 2, ..Limits::default() };

    #[test]
    fn each_limit_is_exact_and_named() {
        let admission = Admission::new();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let two: IpAddr = "2001:db8::2".parse().unwrap();
        let first = admission.admit(one, &LIMITS()).unwrap();
        let _second = admission.admit(one, &LIMITS()).unwrap();
        assert_eq!(admission.admit(one, &LIMITS()).unwrap_err(), CloseReason::ConnectionsPerIp);
        let _third = admission.admit(two, &LIMITS()).unwrap();
        assert_eq!(admission.admit(two, &LIMITS()).unwrap_err(), CloseReason::ConnectionsLimit);
        drop(first);
        assert_eq!(admission.open(), 2);
        assert!(admission.admit(one, &LIMITS()).is_ok());
    }

    #[test]
    fn refusals_leave_nothing_behind() {
        let admission = Admission::new();
        let limits = Limits { connections: 0, ..Limits::default() };
        assert!(admission.admit([192, 0, 2, 1].into(), &limits).is_err());
        let limits = Limits { connections_per_ip: 0, ..Limits::default() };
        assert!(admission.admit([192, 0, 2, 1].into(), &limits).is_err());
        assert_eq!(admission.open(), 0);
        assert!(admission.by_address.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    /// Two workers, each with one place that nobody else wants, beside a storm of refusals: a place that is free
    /// is never refused, and one that is not is never given.
    #[test]
    fn a_storm_of_refusals_costs_nobody_a_place() {
        let admission = Admission::new();
        let limits = Limits { connections: 3, connections_per_ip: 1, ..Limits::default() };
        let barred: IpAddr = [192, 0, 2, 9].into();
        let _taken = admission.admit(barred, &limits).unwrap();
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (admission, start) = (&admission, &start);
                scope.spawn(move || {
                    start.wait();
                    for turn in 0..300_000 {
                        let mine = admission.admit([192, 0, 2, worker].into(), &limits);
                        assert!(mine.is_ok(), "turn {turn}: {:?} though a place was free", mine.err());
                        assert!(admission.admit(barred, &limits).is_err());
                        assert!(admission.open() <= limits.connections);
                    }
                });
            }
        });
        assert_eq!(admission.open(), 1);
    }

    #[test]
    fn a_mapped_address_is_the_same_client() {
        let admission = Admission::new();
        let limits = Limits { connections_per_ip: 1, ..Limits::default() };
        let _plain = admission.admit("192.0.2.1".parse().unwrap(), &limits).unwrap();
        assert!(admission.admit("::ffff:192.0.2.1".parse().unwrap(), &limits).is_err());
    }
}
