//! A request whose body lies behind its head to the end: it goes out in one piece, and may go out again.

use super::{drive_exchange::Exchange, stream::Stream, stream_error::StreamError};
use crate::{
    l7::{
        exchange,
        http1::{Body, BodyReader, Side, Step},
    },
    model::reason::CloseReason,
};

/// Most of a body that is sent along with its head where both are there already: more goes out of the buffer it lies in.
const WHOLE_BYTES_MAX: u64 = 4 << 10;
/// Most of a body, with what frames it, that is waited for so that its request may be sent again.
const REPLAY_BYTES_MAX: u64 = 64 << 10;

impl Exchange<'_, '_> {
    /// Length of the body as it was sent, where all of it is there behind the head. Of a request that may be sent again a
    /// small one is waited for.
    ///
    /// # Errors
    /// The body breaks off or is malformed, or is more than may come: nobody has heard of it.
    pub(super) async fn whole(&self, stream: &mut Stream) -> Result<Option<usize>, CloseReason> {
        let body = self.request.body();
        if body == Body::None {
            return Ok(Some(0));
        }
        let may_wait = self.retry().is_some() && self.request.is_idempotent();
        match body {
            _ if self.request.expects_continue() => Ok(None),
            Body::Length(length) if may_wait && length <= REPLAY_BYTES_MAX => {
                self.whole_counted(stream, length as usize).await.map(Some)
            }
            Body::Length(length) if length <= WHOLE_BYTES_MAX => {
                let len = length as usize;
                Ok(self.has_come(stream, len).then_some(len))
            }
            Body::Chunked if may_wait => self.whole_chunked(stream).await,
            _ => Ok(None),
        }
    }

    fn has_come(&self, stream: &Stream, len: usize) -> bool {
        stream.data().len() >= self.request.len() + len
    }

    async fn whole_counted(&self, stream: &mut Stream, len: usize) -> Result<usize, CloseReason> {
        while !self.has_come(stream, len) {
            self.await_more(stream).await?;
        }
        Ok(len)
    }

    /// Nothing of it is taken: where it turns out to be too long, it can still go as it comes.
    async fn whole_chunked(&self, stream: &mut Stream) -> Result<Option<usize>, CloseReason> {
        let mut reader = BodyReader::limited(Body::Chunked, self.way.body_bytes)?;
        let mut len = 0;
        loop {
            let behind = stream.data().get(self.request.len() + len..).unwrap_or_default();
            match reader.next(behind)? {
                Step::Data { skip, len: data } => len += skip + data,
                Step::Done { consumed } => {
                    len += consumed;
                    return Ok((len <= REPLAY_BYTES_MAX as usize).then_some(len));
                }
                Step::More { consumed } => {
                    len += consumed;
                    if len > REPLAY_BYTES_MAX as usize {
                        return Ok(None);
                    }
                    self.await_more(stream).await?;
                }
            }
        }
    }

    async fn await_more(&self, stream: &mut Stream) -> Result<(), CloseReason> {
        let context = self.context;
        stream.yield_buffer();
        context.deadline.set(context.local().after(self.way.idle));
        match stream.fill(&context.deadline).await {
            Ok(0) | Err(StreamError::Broken) => Err(CloseReason::ClientGone),
            Ok(_) => Ok(()),
            Err(StreamError::Expired) => Err(context.expired(CloseReason::BodyTimeout)),
        }
    }

    /// Appends a body of that [`Exchange::whole`] length, framed as one that goes as it comes. `takes_trailers`: the backend
    /// does.
    pub(super) fn push_whole(&self, stream: &Stream, len: usize, takes_trailers: bool, out: &mut Vec<u8>) {
        let behind = stream.data().get(self.request.len()..).and_then(|behind| behind.get(..len));
        let (body, mut rest) = (self.request.body(), behind.unwrap_or_default());
        if body != Body::Chunked {
            return out.extend_from_slice(rest);
        }
        let mut reader = BodyReader::new(body, Side::Request);
        if takes_trailers {
            reader = reader.keeping_trailers();
        }
        let writer = exchange::writer(body);
        while let Ok(Step::Data { skip, len }) = reader.next(rest) {
            writer.frame(out, &rest[skip..skip + len]);
            rest = &rest[skip + len..];
        }
        writer.finish_with(out, reader.trailers());
    }
}
