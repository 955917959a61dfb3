//! Ids and nouns that every layer speaks.

mod id;
pub mod reason;

pub use id::{BackendId, Generation, ListenerId, PoolId, RouteId, VipId, WorkerId};
