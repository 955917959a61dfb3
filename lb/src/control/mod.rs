//! Decides what the data planes do: starts them, tells them who is up, ends them. May block, allocate and log.

mod demo;
mod host;
mod listeners;
mod paths;
mod plane;
mod prober;
mod secret;
mod signals;

pub use paths::Paths;
