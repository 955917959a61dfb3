//! HTTP/2 (RFC 9113), around the h2 crate: nobody else names a type of it. Messages are turned into those of HTTP/1.1 and
//! back, so that one set of checks holds for all versions.

mod flow;
mod io;
mod meter;
mod request;
mod response;
mod server;
mod trailers;

pub use flow::{Break, Gone, Inflow, Outflow};
pub use io::Wire;
pub use meter::{Abuse, Budgets};
pub use request::write_request;
pub use server::{Asked, Ended, Server, Settings};
