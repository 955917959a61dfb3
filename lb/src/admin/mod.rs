//! The admin API: what runs here, over a unix socket, and a read-only corner of it over TCP.
//!
//! Deliberately absent: anything that changes the daemon. [`View`] has no way to.

pub mod answer;
pub mod api;
pub mod capture;
pub mod client;
mod drops;
#[cfg(test)]
pub(crate) mod fixture;
pub mod flows;
pub mod io;
pub mod metrics;
pub mod packets;
mod query;
mod routes;
pub mod server;
pub mod show;
pub(crate) mod socket;
pub mod status;
#[cfg(test)]
mod tests;
pub mod view;
pub mod why;

pub use client::{capture as begin_capture, get, why as ask_why, why_request as ask_why_request};
pub use packets::{
    Ask, Attached, Cookies, Flow, FlowList, NatReport, Packets, PacketsSource, SlotMove, Spread, SteerReport,
    TableDigest,
};
pub use server::{Doors, Server};
pub use show::What;
pub use view::{View, WorkerView};
