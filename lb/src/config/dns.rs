//! `[dns]`: who is asked for the names of backends, and for how long an answer holds.

use std::{net::SocketAddr, time::Duration};

/// `[dns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dns {
    /// Asked in this order; empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Which addresses of a host are wanted; at least one of both.
    pub families: Families,
    /// For one answer of one server.
    pub timeout: Duration,
    /// How often each server is asked before a lookup has failed.
    pub attempts: u32,
    /// Least time from one answer to the next question, whatever the answer says.
    pub ttl_min: Duration,
    /// Most.
    pub ttl_max: Duration,
    /// How long the last good answer is kept while servers say that there is none.
    pub hold: Duration,
}

/// `dns.families`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// A records.
    pub v4: bool,
    /// AAAA records.
    pub v6: bool,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            families: Families { v4: true, v6: true },
            timeout: Duration::from_secs(2),
            attempts: 2,
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(60),
            hold: Duration::from_secs(30),
        }
    }
}
