//! XDP cases as rows: packet in, map state, verdict, packet out, counters moved.
//!
//! [`rows::all`] is the data. [`host::run`] runs a row on the pure library, [`kernel::Bench::run`] through
//! `BPF_PROG_TEST_RUN` on the built object, and [`row::Row::check`] judges both alike.

pub mod directory;
pub mod guard;
pub mod host;
pub mod kernel;
pub mod namespace;
pub mod nat;
pub mod row;
pub mod rows;
pub mod tap;
pub mod told;
pub mod world;
