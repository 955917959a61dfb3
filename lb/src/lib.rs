//! `lb`: packets at XDP, connections on io_uring, one config.
//!
//! Invariants, written as absences:
//! - Nothing below `worker` and `control` reads a clock, draws a random number or owns a file descriptor,
//!   save `ring`, `sys` and `steering`.
//! - `steering` and `worker` never import each other; `control` carries what one needs of the other.
//! - `model`, `config` and `metrics` import nothing of the rest.
//! - No lock and no atomic read-modify-write per request on a worker, save the bucket of one under a rate limit, and the shelf
//!   for one that takes its connection from there instead of dialling; counters have one writer each.
//! - `unsafe` stands only in `ring`, `sys` and `steering::maps`.

pub mod admin;
pub mod balance;
pub mod cli;
pub mod config;
pub mod control;
pub mod generations;
pub mod health;
pub mod keepalive;
pub mod l7;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod model;
pub mod names;
pub mod relay;
pub mod ring;
pub mod steering;
pub mod sys;
pub mod tls;
pub mod upgrade;
pub mod worker;
