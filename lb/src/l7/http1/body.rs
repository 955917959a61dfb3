//! Body bytes in.

use super::{
    Body,
    chunk::{At, ChunkReader},
};
use crate::model::reason::CloseReason;

/// Whose body it is, and so whose fault a broken one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the client.
    Request,
    /// From the backend.
    Response,
}

/// What the input holds next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `input[skip .. skip + len]` is payload, `len > 0`; what stands before it was framing. Both are consumed:
    /// go on with the rest.
    Data {
        /// Bytes of framing.
        skip: usize,
        /// Bytes of payload.
        len: usize,
    },
    /// All of the input was framing; more must come.
    More {
        /// Bytes of framing, which is all of them.
        consumed: usize,
    },
    /// The body has ended; what follows belongs to the next message.
    Done {
        /// Bytes of framing.
        consumed: usize,
    },
}

/// Finds the payload in what a peer sends as a body. Copies nothing but trailers that are to be kept; others are validated
/// and dropped.
///
/// After an error, every further call gives the same error.
#[derive(Clone, Debug)]
pub struct BodyReader {
    side: Side,
    /// Payload that may still come before the limit is passed.
    allowance: u64,
    state: State,
    /// Kept ones of a body that has ended.
    trailers: Vec<u8>,
}

#[derive(Clone, Debug)]
enum State {
    Length(u64),
    Chunked(ChunkReader),
    UntilClose,
    Done,
    Broken(CloseReason),
}

impl BodyReader {
    /// For a body without a limit.
    pub fn new(body: Body, side: Side) -> Self {
        let state = match body {
            Body::None | Body::Length(0) => State::Done,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Chunked(ChunkReader::new()),
            Body::UntilClose => State::UntilClose,
        };
        Self { side, allowance: u64::MAX, state, trailers: Vec::new() }
    }

    /// From now on trailers are kept: whoever gets the body takes them.
    #[must_use]
    pub fn keeping_trailers(mut self) -> Self {
        if let State::Chunked(chunks) = &mut self.state {
            chunks.trailers = Some(Vec::new());
        }
        self
    }

    /// The trailer lines, as they came, of a body that has ended; none that may not stand there. Empty where they are not
    /// kept.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// For a request body of at most `bytes_max` bytes of payload.
    ///
    /// # Errors
    /// [`CloseReason::BodyTooLarge`] at once where the length is known to be more. A chunked body gives it from
    /// [`BodyReader::next`], before the byte that is too many.
    pub fn limited(body: Body, bytes_max: u64) -> Result<Self, CloseReason> {
        match body {
            Body::Length(length) if length > bytes_max => Err(CloseReason::BodyTooLarge),
            _ => Ok(Self { allowance: bytes_max, ..Self::new(body, Side::Request) }),
        }
    }

    /// Looks at what came next. Call it again with the rest after [`Step::Data`].
    ///
    /// # Errors
    /// Of a request: [`CloseReason::Chunk`], [`CloseReason::Trailer`], [`CloseReason::BodyTooLarge`].
    /// Of a response: [`CloseReason::BadResponse`].
    pub fn next(&mut self, input: &[u8]) -> Result<Step, CloseReason> {
        match &mut self.state {
            State::Done => Ok(Step::Done { consumed: 0 }),
            State::Broken(reason) => Err(*reason),
            State::UntilClose | State::Length(_) if input.is_empty() => Ok(Step::More { consumed: 0 }),
            State::UntilClose => self.data(0, input.len()),
            State::Length(left) => {
                let len = at_most(input.len(), *left);
                self.data(0, len)
            }
            State::Chunked(chunks) => match chunks.take_framing(input) {
                Err(reason) => Err(self.broken(reason)),
                Ok(consumed) if chunks.at == At::Done => {
                    self.trailers = chunks.trailers.take().unwrap_or_default();
                    self.state = State::Done;
                    Ok(Step::Done { consumed })
                }
                Ok(skip) if skip < input.len() => {
                    let len = at_most(input.len() - skip, chunks.left);
                    self.data(skip, len)
                }
                Ok(consumed) => Ok(Step::More { consumed }),
            },
        }
    }

    fn data(&mut self, skip: usize, len: usize) -> Result<Step, CloseReason> {
        if len as u64 > self.allowance {
            return Err(self.broken(CloseReason::BodyTooLarge));
        }
        self.advance(len as u64);
        Ok(Step::Data { skip, len })
    }

    /// Notes `bytes` of payload that went by without [`BodyReader::next`], through a pipe. They must not exceed
    /// [`BodyReader::contiguous`].
    pub fn advance(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.contiguous(), "more payload taken than there was");
        self.allowance = self.allowance.saturating_sub(bytes);
        match &mut self.state {
            State::Length(left) => {
                *left = left.saturating_sub(bytes);
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::Chunked(chunks) if chunks.at == At::Data => chunks.take_data(bytes.min(chunks.left)),
            State::Chunked(_) | State::UntilClose | State::Done | State::Broken(_) => {}
        }
    }

    /// Payload bytes that follow without framing between them: what may be spliced now.
    pub fn contiguous(&self) -> u64 {
        let there = match &self.state {
            State::Length(left) => *left,
            State::Chunked(chunks) if chunks.at == At::Data => chunks.left,
            State::UntilClose => u64::MAX,
            State::Chunked(_) | State::Done | State::Broken(_) => 0,
        };
        there.min(self.allowance)
    }

    /// Whether the body has ended well.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The peer has closed its side.
    ///
    /// # Errors
    /// The body had not ended: [`CloseReason::ClientGone`] or [`CloseReason::Truncated`].
    pub fn at_eof(&mut self) -> Result<(), CloseReason> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Broken(reason) => Err(reason),
            State::Length(_) | State::Chunked(_) => {
                let reason = match self.side {
                    Side::Request => CloseReason::ClientGone,
                    Side::Response => CloseReason::Truncated,
                };
                self.state = State::Broken(reason);
                Err(reason)
            }
        }
    }

    /// Payload still to come, where that is known.
    pub const fn remaining_known(&self) -> Option<u64> {
        match &self.state {
            State::Length(left) => Some(*left),
            State::Done => Some(0),
            State::Chunked(_) | State::UntilClose | State::Broken(_) => None,
        }
    }

    fn broken(&mut self, reason: CloseReason) -> CloseReason {
        let reason = match self.side {
            Side::Request => reason,
            Side::Response => CloseReason::BadResponse,
        };
        self.state = State::Broken(reason);
        reason
    }
}

fn at_most(len: usize, max: u64) -> usize {
    usize::try_from(max).map_or(len, |max| len.min(max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::l7::http1::BodyWriter;

    /// Payload, and bytes that belong to the next message.
    type Outcome = Result<(Vec<u8>, usize), CloseReason>;

    /// Feeds `input` in pieces that end at `cuts`.
    fn read(mut reader: BodyReader, input: &[u8], cuts: &[usize]) -> Outcome {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        cuts.push(input.len());
        cuts.sort_unstable();
        let (mut at, mut payload) = (0, Vec::new());
        for cut in cuts {
            loop {
                match reader.next(&input[at..cut])? {
                    Step::Data { skip, len } => {
                        assert!(len > 0);
                        payload.extend_from_slice(&input[at + skip..at + skip + len]);
                        at += skip + len;
                        if reader.is_done() {
                            return Ok((payload, input.len() - at));
                        }
                    }
                    Step::More { consumed } => {
                        assert_eq!(at + consumed, cut);
                        at = cut;
                        break;
                    }
                    Step::Done { consumed } => {
                        assert!(reader.is_done());
                        assert_eq!(reader.next(b"GET"), Ok(Step::Done { consumed: 0 }));
                        return Ok((payload, input.len() - at - consumed));
                    }
                }
            }
        }
        reader.at_eof().map(|()| (payload, 0))
    }

    fn chunked(input: &[u8]) -> Outcome {
        let outcome = read(BodyReader::new(Body::Chunked, Side::Request), input, &[]);
        let every: Vec<_> = (0..input.len()).collect();
        assert_eq!(outcome, read(BodyReader::new(Body::Chunked, Side::Request), input, &every));
        let response = read(BodyReader::new(Body::Chunked, Side::Response), input, &every);
        match &outcome {
            Ok(_) => assert_eq!(response, outcome),
            Err(CloseReason::ClientGone) => assert_eq!(response, Err(CloseReason::Truncated)),
            Err(_) => assert_eq!(response, Err(CloseReason::BadResponse)),
        }
        outcome
    }

    #[test]
    fn sound_chunks() {
        for (input, payload, extra) in [
            ("0\r\n\r\n", "", 0),
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", 3),
            ("5\r\nhello\r\n7\r\n, world\r\n0000\r\n\r\n", "hello, world", 0),
            ("a;name=value;q=\"a \\\" b\";flag\r\n0123456789\r\n0;last\r\n\r\n", "0123456789", 0),
            ("1\r\nx\r\n0\r\nX-Checksum: 1 2\r\nx-empty:\r\n\r\nrest", "x", 4),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", "x", 0),
        ] {
            assert_eq!(chunked(input.as_bytes()), Ok((payload.into(), extra)), "{input:?}");
        }
    }

    #[test]
    fn trailers_are_kept_where_they_are_wanted() {
        let input = b"1\r\nx\r\n0\r\ngrpc-status: 0\r\nX-Empty:\r\nx:  y \r\n\r\nGET";
        for cut in 0..input.len() {
            let mut reader = BodyReader::new(Body::Chunked, Side::Response).keeping_trailers();
            let mut dropping = BodyReader::new(Body::Chunked, Side::Response);
            for reader in [&mut reader, &mut dropping] {
                let (mut at, mut end) = (0, cut);
                while !reader.is_done() {
                    assert_eq!(reader.trailers(), b"", "not before they are all there");
                    match reader.next(&input[at..end]).unwrap() {
                        Step::Data { skip, len } => at += skip + len,
                        Step::More { consumed } | Step::Done { consumed } => {
                            at += consumed;
                            end = input.len();
                        }
                    }
                }
                assert_eq!(&input[at..], b"GET");
            }
            assert_eq!(reader.trailers(), b"grpc-status: 0\r\nX-Empty:\r\nx:  y \r\n");
            assert_eq!(dropping.trailers(), b"");
        }
        let mut none = BodyReader::new(Body::Chunked, Side::Request).keeping_trailers();
        assert_eq!(none.next(b"0\r\n\r\n"), Ok(Step::Done { consumed: 5 }));
        assert_eq!(none.trailers(), b"");
    }

    #[test]
    fn row_25_chunk_sizes() {
        for size in [
            "0x5",
            "+5",
            " 5",
            "5_",
            "-1",
            "",
            "g",
            "5 ",
            "\t5",
            "00000000000000005",
            "ffffffffffffffff",
            "8000000000000000",
            "5\0",
            "5,",
            "\r\n5",
        ] {
            assert_eq!(
                chunked(format!("{size}\r\nhello\r\n0\r\n\r\n").as_bytes()),
                Err(CloseReason::Chunk),
                "{size:?}"
            );
        }
        // The largest that counts is read as a size; the data is just not there.
        assert_eq!(chunked(b"7fffffffffffffff\r\nx"), Err(CloseReason::ClientGone));
    }

    #[test]
    fn row_26_data_ends_where_its_size_says() {
        for input in [
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\rX0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "0\r\n\nX",
            "0\n\r\n",
        ] {
            assert_eq!(chunked(input.as_bytes()), Err(CloseReason::Chunk), "{input:?}");
        }
    }

    #[test]
    fn row_27_chunk_extensions() {
        for extension in [
            ";",
            ";;a",
            ";a=",
            ";a=\"",
            ";a=\"b\"c",
            ";a b",
            "; a",
            " ;a",
            ";a =b",
            ";a= b",
            ";a=b\nc",
            ";a=\"b\rc\"",
            ";a=\"\0\"",
            ";\0",
            ";a\x0b",
            ";=b",
            ";a==b",
            ";a=\"\\\r\n\"",
            ";a;",
            ";(a)",
        ] {
            let input = format!("5{extension}\r\nhello\r\n0\r\n\r\n");
            assert_eq!(chunked(input.as_bytes()), Err(CloseReason::Chunk), "{extension:?}");
        }
    }

    #[test]
    fn row_27_extensions_in_all_are_bounded() {
        let body = |chunks: usize, len: usize| {
            format!("1;{}\r\nx\r\n", "e".repeat(len)).repeat(chunks) + "0\r\n\r\n"
        };
        assert_eq!(chunked(body(1, (16 << 10) - 1).as_bytes()).map(|(payload, _)| payload.len()), Ok(1));
        assert_eq!(chunked(body(1, 16 << 10).as_bytes()), Err(CloseReason::Chunk));
        assert_eq!(chunked(body(16, 1023).as_bytes()).map(|(payload, _)| payload.len()), Ok(16));
        assert_eq!(chunked(body(17, 1023).as_bytes()), Err(CloseReason::Chunk));
    }

    #[test]
    fn row_28_trailers_that_may_not_be() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "HOST",
            "Authorization",
            "Cookie",
            "Connection",
            "TE",
            "Content_Length",
            "X-Forwarded-For",
            "Trailer",
        ] {
            let input = format!("0\r\n{name}: 5\r\n\r\n");
            assert_eq!(chunked(input.as_bytes()), Err(CloseReason::Trailer), "{name}");
        }
        for trailer in [
            "no-colon\r\n",
            ": v\r\n",
            " folded: v\r\n",
            "a : v\r\n",
            "a: v\n",
            "a: \0\r\n",
            "a: v\rb\r\n",
            "a: v\r\n more\r\n",
        ] {
            let input = format!("0\r\n{trailer}\r\n");
            assert_eq!(chunked(input.as_bytes()), Err(CloseReason::Chunk), "{trailer:?}");
        }
        let long = format!("0\r\n{}Host: v\r\n\r\n", "x".repeat(300));
        assert_eq!(chunked(long.as_bytes()), Ok((Vec::new(), 0)));
    }

    #[test]
    fn row_29_endless_trailers() {
        let trailers = |lines: usize| format!("0\r\n{}\r\n", "a: bcdef\r\n".repeat(lines));
        assert_eq!(chunked(trailers(819).as_bytes()), Ok((Vec::new(), 0)));
        assert_eq!(chunked(trailers(820).as_bytes()), Err(CloseReason::Trailer));
        assert_eq!(chunked(format!("0\r\n{}", "x".repeat(9000)).as_bytes()), Err(CloseReason::Trailer));
    }

    #[test]
    fn row_24_body_limit_by_length_and_by_count() {
        let limited = |body| BodyReader::limited(body, 5);
        assert_eq!(limited(Body::Length(6)).map(|_| ()), Err(CloseReason::BodyTooLarge));
        assert!(limited(Body::Length(5)).is_ok());
        let count = |input: &str| read(limited(Body::Chunked).unwrap(), input.as_bytes(), &[3, 4, 5]);
        assert_eq!(count("5\r\nhello\r\n0\r\n\r\n"), Ok((b"hello".to_vec(), 0)));
        assert_eq!(count("5\r\nhello\r\n1\r\nx\r\n0\r\n\r\n"), Err(CloseReason::BodyTooLarge));
        assert_eq!(CloseReason::BodyTooLarge.status(), 413);
    }

    #[test]
    fn lengths() {
        let reader = BodyReader::new(Body::Length(5), Side::Request);
        assert_eq!(read(reader.clone(), b"helloGET", &[2]), Ok((b"hello".to_vec(), 3)));
        assert_eq!(read(reader, b"hell", &[2]), Err(CloseReason::ClientGone));
        let reader = BodyReader::new(Body::Length(5), Side::Response);
        assert_eq!(read(reader, b"hell", &[2]), Err(CloseReason::Truncated));
        let mut reader = BodyReader::new(Body::UntilClose, Side::Response);
        assert_eq!(reader.next(b"abc"), Ok(Step::Data { skip: 0, len: 3 }));
        assert!(!reader.is_done());
        assert_eq!(reader.at_eof(), Ok(()));
        assert!(reader.is_done());
        for body in [Body::None, Body::Length(0)] {
            assert!(BodyReader::new(body, Side::Response).is_done());
        }
    }

    #[test]
    fn row_35_a_broken_response_stays_broken() {
        let mut reader = BodyReader::new(Body::Chunked, Side::Response);
        assert_eq!(reader.next(b"5\r\nhel"), Ok(Step::Data { skip: 3, len: 3 }));
        assert_eq!(reader.at_eof(), Err(CloseReason::Truncated));
        assert_eq!(reader.next(b"lo\r\n0\r\n\r\n"), Err(CloseReason::Truncated));
        assert_eq!(reader.remaining_known(), None);
        assert!(!reader.is_done());
    }

    #[test]
    fn payload_may_go_by_unseen() {
        let mut reader = BodyReader::new(Body::Length(1 << 40), Side::Response);
        reader.advance(1 << 39);
        assert_eq!(reader.remaining_known(), Some(1 << 39));
        reader.advance(1 << 39);
        assert!(reader.is_done());

        let mut reader = BodyReader::new(Body::Chunked, Side::Response);
        assert_eq!(reader.contiguous(), 0);
        assert_eq!(reader.next(b"100\r\nx"), Ok(Step::Data { skip: 5, len: 1 }));
        assert_eq!(reader.contiguous(), 255);
        reader.advance(255);
        assert_eq!(reader.next(b"\r\n0\r\n\r\n"), Ok(Step::Done { consumed: 7 }));
    }

    proptest! {
        /// Any bytes, cut anyhow, give one outcome.
        #[test]
        fn cuts_do_not_matter(
            input in "(0|5|a|;|=|\"|\r\n|\r|\n|hello|x:| |Host:){0,20}",
            cuts in prop::collection::vec(0usize..200, 0..6),
        ) {
            let reader = BodyReader::new(Body::Chunked, Side::Request);
            prop_assert_eq!(
                read(reader.clone(), input.as_bytes(), &cuts),
                read(reader, input.as_bytes(), &[])
            );
        }

        /// What the writer frames, the reader reads, whatever the cuts; what follows is left alone.
        #[test]
        fn writer_and_reader_agree(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cuts in prop::collection::vec(0usize..400, 0..8),
        ) {
            let mut framed = Vec::new();
            for piece in &pieces {
                BodyWriter::Chunked.frame(&mut framed, piece);
            }
            BodyWriter::Chunked.finish(&mut framed);
            framed.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let reader = BodyReader::new(Body::Chunked, Side::Request);
            prop_assert_eq!(read(reader, &framed, &cuts), Ok((pieces.concat(), 16)));
        }
    }
}
