//! Namespace tests: real clients, real servers, the real daemon.
//!
//! Every test stands in a scene of its own, one at a time, and ends with the proof that nothing is left of it.

mod arms;
mod balance;
mod budgets;
mod capture;
mod change;
mod check;
mod checks;
mod choose;
mod clients;
mod contract;
mod cookies;
mod crowd;
mod datagrams;
mod drain;
mod faults;
mod harness;
mod health;
mod hotplug;
mod http;
mod http_limits;
mod lifecycle;
mod limit;
mod log;
mod names;
mod nat;
mod outlier;
mod passthrough;
mod privileges;
mod proxied;
mod quic;
mod quickstart;
mod ranges;
mod redis;
mod relay;
mod routes;
mod secure_checks;
mod spread;
mod steering;
mod tunnel;
mod unprivileged;
mod upgrade;
mod vip;
mod why;
mod workers;
