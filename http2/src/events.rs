//! What comes of what has come.

use crate::{code::Code, field::Flaw, fields::TooLarge, head::Head, streams::Stream};

/// Whoever hears what a connection has found out, in the order in which it came.
///
/// Nothing can be sent from within: what is learned here is to be acted upon when the call that tells it has returned.
pub trait Events {
    /// A head: of a server the request's, which opens its stream; of a client one of the response's, interim ones with a
    /// status below 200. `ends`: nothing follows.
    fn head(&mut self, stream: Stream, head: &Head<'_>, ends: bool);

    /// A request whose head is larger than was allowed: it can be answered, or reset. No more is said of it.
    fn too_large(&mut self, stream: Stream, what: TooLarge, ends: bool);

    /// Bytes of content. They count against the windows until they are
    /// [released](crate::Connection::release). `ends`: nothing follows; `data` may be empty then.
    fn data(&mut self, stream: Stream, data: &[u8], ends: bool);

    /// Fields behind the content: the end.
    fn trailers(&mut self, stream: Stream, trailers: &Head<'_>);

    /// The stream is gone, and its handle is nobody's any more. What the caller holds of it is released.
    fn reset(&mut self, stream: Stream, code: Code, by: By);

    /// A request that never got as far as [`Events::head`] was reset.
    fn rejected(&mut self, id: u32, flaw: Flaw);

    /// A stream of which [`send_data`](crate::Connection::send_data) did not take all may try again, and should, or be
    /// reset: others behind it wait for it to have had its turn.
    fn window(&mut self, stream: Stream);

    /// The peer has said what it grants, which may be more streams than before, or fewer.
    fn settings(&mut self);

    /// The peer takes nothing more. Its streams beyond `last` are reset, one after another, before this is told.
    fn goaway(&mut self, last: u32, code: Code);
}

/// Who has given a stream up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The peer.
    Peer,
    /// The peer, before it looked at it: GOAWAY names no stream that high (RFC 9113, 6.8).
    Unseen,
    /// We, because of this.
    Us(Flaw),
}
