//! Namespace tests: real clients, real servers, the real daemon.
//!
//! Every test stands in a scene of its own, one at a time, and ends with the proof that nothing is left of it.

mod arms;
mod capture;
mod check;
mod choose;
mod cookies;
mod drain;
mod harness;
mod health;
mod hotplug;
mod http;
mod lifecycle;
mod limit;
mod log;
mod nat;
mod quic;
mod quickstart;
mod ranges;
mod relay;
mod routes;
mod spread;
mod steering;
mod tunnel;
mod unprivileged;
mod vip;
mod why;
