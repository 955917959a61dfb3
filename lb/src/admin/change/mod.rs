//! From a request that changes something to a wish, and from what comes of it to an answer.

mod asked;
mod body;
mod client;
mod json;
mod outcome;
mod precondition;
#[cfg(test)]
mod tests;

pub use asked::Asked;
pub(super) use body::Bodies;
pub use client::{ChangeRequest, Refused, request};
pub(super) use outcome::serve;
