//! The targets.

pub mod admin;
pub mod body;
pub mod client_hello;
pub mod config;
pub mod dns;
pub mod http2_backend;
pub mod http2_client;
pub mod packet;
pub mod probe;
pub mod proxy;
pub mod request;
pub mod response;
pub mod stream;
pub mod tls;
pub mod why;

/// One of them.
#[derive(Debug)]
pub struct Target {
    /// Its file's name, too.
    pub name: &'static str,
    /// Panics where a property does not hold for these bytes.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Pieces that inputs are made of.
    pub words: fn() -> Vec<Vec<u8>>,
}

/// All, by name.
pub const ALL: &[Target] = &[
    admin::TARGET,
    body::TARGET,
    client_hello::TARGET,
    config::TARGET,
    dns::TARGET,
    http2_backend::TARGET,
    http2_client::TARGET,
    packet::TARGET,
    probe::TARGET,
    proxy::TARGET,
    request::TARGET,
    response::TARGET,
    stream::TARGET,
    tls::TARGET,
    why::TARGET,
];
