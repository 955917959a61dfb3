//! Ids and nouns that every layer speaks.

mod id;
mod question;
pub mod reason;

pub use id::{BackendId, Generation, ListenerId, PoolId, RouteId, VipId, WorkerId};
pub use question::{LENGTH_MAX, Question, QuestionError, QuestionProtocol};
