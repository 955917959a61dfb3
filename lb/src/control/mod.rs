//! Decides what the data planes do: starts them, tells them who is up, ends them. May block, allocate and log.

mod access_log;
mod capture;
mod clock;
mod cookies;
mod decap;
mod demo;
mod desired;
mod host;
mod hotplug;
mod lineage;
mod listeners;
mod loads;
mod lock;
mod neighbours;
mod opening;
mod packet_path;
mod paths;
mod plan;
mod plane;
mod probe_socket;
mod prober;
mod quic;
pub mod quic_id;
mod ranges;
#[cfg(test)]
mod routing;
mod run;
mod secret;
mod signals;
mod sources;
mod spread;
mod ways;
mod workers;

pub use decap::decap;
pub use packet_path::detach;
pub use paths::Paths;
pub use run::{Options, run};
