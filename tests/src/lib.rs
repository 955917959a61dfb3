//! Test harness: namespaces on one switch, real servers and clients in them, and the daemon under test.
//!
//! What is made here is named after this process, goes away by `Drop` also when a test panics, and is looked
//! for afterwards: see [`scene`]. Nothing here sleeps for a fixed time; see [`wait`].

pub mod admin;
pub mod arms;
pub mod authority;
pub mod checksums;
pub mod counting;
pub mod curl;
pub mod daemon;
pub mod fault;
pub mod flood;
pub mod frames;
pub mod grpc;
pub mod keepalive;
pub mod leak;
pub mod load;
pub mod long;
pub mod manager;
pub mod moody;
pub mod netns;
pub mod nginx;
pub mod packet;
pub mod passage;
pub mod pattern;
pub mod peer;
pub mod process;
pub mod requirement;
pub mod scene;
pub mod topology;
pub mod tunnel;
mod turn;
pub mod udp;
pub mod view;
pub mod wait;
pub mod xdp;
