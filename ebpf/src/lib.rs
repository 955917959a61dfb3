//! The packet path as pure functions: what `lb_ingress` and `lb_decap` do, without a kernel.
//!
//! A packet is a [`packet::Packet`]; maps, routes, clock and counters are an [`env::Env`], and what is called apart from
//! the path is a [`walk::Walk`]. The object (`main.rs`, behind feature `bpf`) implements all three over the kernel's,
//! tests over vectors and cells, so that one set of rows is run on both. Order of steps in [`ingress::ingress`]:
//!
//! ```text
//! parse link, IP -> deny and allow lists -> parse transport -> echo | VIP (of the flow that an ICMP error quotes) ->
//! connection id | slot -> flow record -> itself | ttl -> route -> too big | front -> out
//! ```
//! Absent on purpose: allocation, panics, raw pointers, logging, and every look-up a packet does not need.
#![no_std]

pub mod address;
pub mod capture;
pub mod checksum;
pub mod choose;
pub mod cookie;
pub mod decap;
pub mod directory;
pub mod encap;
pub mod env;
pub mod flow;
pub mod fragment;
pub mod guard;
pub mod gue;
pub mod hop;
pub mod icmp;
pub mod ingress;
pub mod limit;
pub mod listener;
pub mod nat;
pub mod numbers;
pub mod outer;
pub mod packet;
pub mod parse;
pub mod probe;
pub mod quic;
pub mod route;
pub mod select;
pub mod source;
pub mod spread;
pub mod verdict;
pub mod walk;
pub mod way;
pub mod witness;

#[cfg(test)]
extern crate std;
