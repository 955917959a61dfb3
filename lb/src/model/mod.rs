//! Ids and nouns that every layer speaks.

mod id;
mod question;
pub mod reason;
mod request;

pub use id::{BackendId, Generation, ListenerId, PoolId, RouteId, VipId, WorkerId};
pub use question::{LENGTH_MAX, Question, QuestionError, QuestionProtocol};
pub use request::RequestQuestion;
