//! The admin API: what runs here, over a unix socket, and a read-only corner of it over TCP.
//!
//! Deliberately absent: anything that changes the daemon. [`View`] has no way to.

pub mod api;
pub mod client;
#[cfg(test)]
pub(crate) mod fixture;
pub mod flows;
pub mod io;
pub mod metrics;
pub mod packets;
pub mod server;
pub mod show;
pub(crate) mod socket;
pub mod status;
#[cfg(test)]
mod tests;
pub mod view;

pub use client::get;
pub use packets::{
    Ask, Attached, Cookies, Flow, FlowList, Packets, PacketsSource, SlotMove, Spread, SteerReport,
    TableDigest,
};
pub use server::{Doors, Server};
pub use show::What;
pub use view::{View, WorkerView};
