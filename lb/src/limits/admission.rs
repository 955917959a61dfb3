//! How many connections may be open, in all, per listener and per address, over all workers.
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

use super::{memory::Memory, rate::Rates};
use crate::{
    config::Limits,
    metrics::LISTENERS_MAX,
    model::{ListenerId, reason::CloseReason},
};

const SHARDS: usize = 64;

/// Shared by all workers.
#[derive(Debug)]
pub struct Admission {
    open: AtomicUsize,
    by_listener: Box<[AtomicUsize]>,
    by_address: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    hasher: RandomState,
    rates: Rates,
    memory: Memory,
}

impl Admission {
    /// Nobody is in.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            by_listener: (0..LISTENERS_MAX).map(|_| AtomicUsize::new(0)).collect(),
            by_address: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
            rates: Rates::default(),
            memory: Memory::default(),
        })
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How often requests may come.
    pub const fn rates(&self) -> &Rates {
        &self.rates
    }

    /// How much memory is in use.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Lets a connection in, or says which limit it met.
    ///
    /// # Errors
    /// [`CloseReason::ConnectionsLimit`], [`CloseReason::ConnectionsPerIp`], [`CloseReason::ConnectionsListener`].
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        listener: ListenerId,
        listener_max: Option<usize>,
        limits: &Limits,
    ) -> Result<Permit, CloseReason> {
        let address = address.to_canonical();
        let mut shard = self.shard(address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = shard.get(&address).copied().unwrap_or(0);
        if count >= limits.connections_per_ip {
            return Err(CloseReason::ConnectionsPerIp);
        }
        self.take_place(listener, listener_max, limits)?;
        shard.insert(address, count + 1);
        Ok(Permit { admission: self.clone(), address, is_named: true, listener })
    }

    /// Lets in who comes, from `address`, for somebody that is not known yet: it counts among all, and of no address.
    ///
    /// # Errors
    /// [`CloseReason::ConnectionsLimit`], [`CloseReason::ConnectionsListener`].
    pub fn admit_unnamed(
        self: &Arc<Self>,
        address: IpAddr,
        listener: ListenerId,
        listener_max: Option<usize>,
        limits: &Limits,
    ) -> Result<Permit, CloseReason> {
        self.take_place(listener, listener_max, limits)?;
        let address = address.to_canonical();
        Ok(Permit { admission: self.clone(), address, is_named: false, listener })
    }

    fn take_place(
        &self,
        listener: ListenerId,
        listener_max: Option<usize>,
        limits: &Limits,
    ) -> Result<(), CloseReason> {
        // Never counted and taken back: a refused connection must not cost another one its place meanwhile. Where both are
        // at their limit, the place in the listener may: that one is refused as well.
        let one_more = |max: usize| move |open: usize| (open < max).then_some(open + 1);
        let of_listener = &self.by_listener[listener.index()];
        let listener_max = listener_max.unwrap_or(usize::MAX);
        if of_listener.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more(listener_max)).is_err() {
            return Err(CloseReason::ConnectionsListener);
        }
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more(limits.connections)).is_err()
        {
            of_listener.fetch_sub(1, Ordering::Relaxed);
            return Err(CloseReason::ConnectionsLimit);
        }
        Ok(())
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
    /// It counts where `address` does.
    is_named: bool,
    listener: ListenerId,
}

impl Permit {
    /// Whose connection it is; of one that is not named yet, who came. Never an IPv4 address inside an IPv6 one.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Where it came in.
    pub const fn listener(&self) -> ListenerId {
        self.listener
    }

    /// It is known now whose connection it is; from here on it counts there.
    ///
    /// # Errors
    /// [`CloseReason::ConnectionsPerIp`].
    pub fn name(&mut self, address: IpAddr, limits: &Limits) -> Result<(), CloseReason> {
        assert!(!self.is_named, "a connection is named once");
        let address = address.to_canonical();
        let mut shard = self.admission.shard(address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = shard.get(&address).copied().unwrap_or(0);
        if count >= limits.connections_per_ip {
            return Err(CloseReason::ConnectionsPerIp);
        }
        shard.insert(address, count + 1);
        (self.address, self.is_named) = (address, true);
        Ok(())
    }

    fn leave(&self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        self.admission.by_listener[self.listener.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_named {
            return self.leave();
        }
        let address = self.address;
        let shard = self.admission.shard(address);
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        self.leave();
        if let Some(count) = shard.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENER: ListenerId = ListenerId(1);
    const LIMITS: fn() -> Limits = || Limits { connections: 3, connections_per_ip: 2, ..Limits::default() };

    #[test]
    fn each_limit_is_exact_and_named() {
        let admission = Admission::new();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let two: IpAddr = "2001:db8::2".parse().unwrap();
        let first = admission.admit(one, LISTENER, None, &LIMITS()).unwrap();
        let _second = admission.admit(one, LISTENER, None, &LIMITS()).unwrap();
        assert_eq!(
            admission.admit(one, LISTENER, None, &LIMITS()).unwrap_err(),
            CloseReason::ConnectionsPerIp
        );
        let _third = admission.admit(two, LISTENER, None, &LIMITS()).unwrap();
        assert_eq!(
            admission.admit(two, LISTENER, None, &LIMITS()).unwrap_err(),
            CloseReason::ConnectionsLimit
        );
        drop(first);
        assert_eq!(admission.open(), 2);
        assert!(admission.admit(one, LISTENER, None, &LIMITS()).is_ok());
    }

    #[test]
    fn refusals_leave_nothing_behind() {
        let admission = Admission::new();
        let limits = Limits { connections: 0, ..Limits::default() };
        assert!(admission.admit([192, 0, 2, 1].into(), LISTENER, None, &limits).is_err());
        let limits = Limits { connections_per_ip: 0, ..Limits::default() };
        assert!(admission.admit([192, 0, 2, 1].into(), LISTENER, None, &limits).is_err());
        assert_eq!(admission.open(), 0);
        assert!(admission.by_address.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn who_is_named_later_counts_among_all_at_once_and_of_an_address_then() {
        let admission = Admission::new();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let admit = || admission.admit_unnamed([192, 0, 2, 9].into(), LISTENER, None, &LIMITS());
        let mut unnamed: Vec<_> = (0..3).map(|_| admit().unwrap()).collect();
        assert_eq!(admit().unwrap_err(), CloseReason::ConnectionsLimit);
        unnamed[0].name(one, &LIMITS()).unwrap();
        unnamed[1].name("::ffff:192.0.2.1".parse().unwrap(), &LIMITS()).unwrap();
        assert_eq!(unnamed[2].name(one, &LIMITS()), Err(CloseReason::ConnectionsPerIp));
        drop(unnamed);
        assert_eq!(admission.open(), 0);
        assert!(admission.by_address.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_listener_has_its_own_limit() {
        let admission = Admission::new();
        let limits = Limits { connections: 3, ..Limits::default() };
        let admit =
            |listener, max| admission.admit([192, 0, 2, 1].into(), ListenerId(listener), max, &limits);
        let _first = admit(1, Some(1)).unwrap();
        assert_eq!(admit(1, Some(1)).unwrap_err(), CloseReason::ConnectionsListener);
        let _other = admit(2, Some(2)).unwrap();
        let _third = admit(2, Some(2)).unwrap();
        assert_eq!(admit(3, Some(1)).unwrap_err(), CloseReason::ConnectionsLimit);
        drop(_other);
        assert!(admit(3, Some(1)).is_ok(), "a refusal keeps no place");
    }

    /// Two workers, each with one place that nobody else wants, beside a storm of refusals: a place that is free
    /// is never refused, and one that is not is never given.
    #[test]
    fn a_storm_of_refusals_costs_nobody_a_place() {
        let admission = Admission::new();
        let limits = Limits { connections: 3, connections_per_ip: 1, ..Limits::default() };
        let barred: IpAddr = [192, 0, 2, 9].into();
        let _taken = admission.admit(barred, LISTENER, None, &limits).unwrap();
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (admission, start) = (&admission, &start);
                scope.spawn(move || {
                    start.wait();
                    for turn in 0..300_000 {
                        let mine = admission.admit([192, 0, 2, worker].into(), LISTENER, None, &limits);
                        assert!(mine.is_ok(), "turn {turn}: {:?} though a place was free", mine.err());
                        assert!(admission.admit(barred, LISTENER, None, &limits).is_err());
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
        let _plain = admission.admit("192.0.2.1".parse().unwrap(), LISTENER, None, &limits).unwrap();
        assert!(admission.admit("::ffff:192.0.2.1".parse().unwrap(), LISTENER, None, &limits).is_err());
    }
}
