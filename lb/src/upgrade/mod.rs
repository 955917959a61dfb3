//! One process after another at the same sockets: what is handed over, in which order, and what becomes of it when the
//! new one fails.
//!
//! ```text
//!  old: freeze --start, Offer + sockets--> wait ----------Ready----> leave the admin doors --Go--> drain, Totals...
//!                                           |                                                      ^
//!  new:                     bind nothing, adopt, start workers, arm accepts --> Ready --> wait --> serve all
//!                                           `-- Refused, end, silence: killed; the old one thaws and goes on
//! ```
//! Both accept at the same sockets from `Ready` until the old one drains, so there is no moment at which nobody does.
//! The sockets of systemd's fd store come by another way to the same [`Inheritance`].

pub mod binary;
mod frame;
mod inheritance;
mod message;
mod predecessor;
mod predecessors;
pub mod store;
mod successor;

pub use inheritance::{Inheritance, InheritedGroup};
pub use message::{
    Down, Ejections, FORMAT, FlowOffer, Go, GroupOffer, Leaving, Offer, Ready, Secrets, Totals,
};
pub use predecessor::{Gone, Predecessor};
pub use predecessors::{LeavingView, Predecessors};
pub use successor::{Lent, Successor, TAKE_OVER};
