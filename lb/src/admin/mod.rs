//! The admin API: what runs here, over a unix socket, and a read-only corner of it over TCP.
//!
//! Nothing here changes the daemon itself: a [change](changes) is asked of control.

pub mod answer;
pub mod api;
pub mod capture;
mod certificate_list;
pub mod certificates;
pub mod change;
pub mod changes;
pub mod client;
mod doors;
mod drops;
mod endpoints;
#[cfg(test)]
pub(crate) mod fixture;
pub mod flows;
mod generation_list;
pub mod generations;
mod handle;
mod health_metrics;
pub mod io;
pub mod metrics;
mod openapi;
#[cfg(test)]
mod openapi_tests;
pub mod packets;
mod query;
mod routes;
pub mod server;
pub mod show;
pub(crate) mod socket;
mod standing;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
mod upstream_metrics;
pub mod view;
pub mod why;

pub use certificates::CertificateView;
pub use change::{ChangeRequest, Refused, request as request_change};
pub use client::{capture as begin_capture, get, why as ask_why, why_request as ask_why_request};
pub use doors::{Doors, OpenDoors};
pub use handle::ServerHandle;
pub use packets::{
    Ask, Attached, Cookies, Flow, FlowList, NatReport, Packets, PacketsSource, SlotMove, Spread, SteerReport,
    TableDigest,
};
pub(crate) use query::encode;
pub use server::Server;
pub use show::What;
pub use view::{CheckView, NameView, View, Views, WorkerView};
