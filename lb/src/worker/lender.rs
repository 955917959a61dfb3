//! Sockets whose flows can go on elsewhere, as seen by who does not serve them.

use super::api::LentFlow;

/// A listening socket for datagrams, with its flows.
pub(super) trait Lender {
    /// Whether another worker has the socket now.
    fn is_given_away(&self) -> bool;

    /// Its flows: nothing of them is taken or answered here any more.
    fn hand_over(&self) -> Vec<LentFlow>;
}
