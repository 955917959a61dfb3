//! Ids and nouns that every layer speaks.

mod address;
mod id;
mod name;
mod question;
pub mod reason;
mod request;

pub use address::{BackendAddress, UNIX_BYTES_MAX, UnixAddress};
pub use id::{BackendId, Generation, GroupId, ListenerId, PoolId, RouteId, VipId, WorkerId};
pub use name::{BackendName, DomainName, FoundBackend};
pub use question::{LENGTH_MAX, Question, QuestionError, QuestionProtocol};
pub use request::{RequestQuestion, Scheme};
