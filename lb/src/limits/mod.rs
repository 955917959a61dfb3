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
        if self.open.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(CloseReason::ConnectionsLimit);
        }
        let mut shard = self.shard(address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = shard.entry(address).or_insert(0);
        if *count >= limits.connections_per_ip {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(CloseReason::ConnectionsPerIp);
        }
        *count += 1;
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
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let shard = self.admission.shard(self.address);
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn a_mapped_address_is_the_same_client() {
        let admission = Admission::new();
        let limits = Limits { connections_per_ip: 1, ..Limits::default() };
        let _plain = admission.admit("192.0.2.1".parse().unwrap(), &limits).unwrap();
        assert!(admission.admit("::ffff:192.0.2.1".parse().unwrap(), &limits).is_err());
    }
}
