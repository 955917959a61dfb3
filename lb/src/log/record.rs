//! What is known of one request or relay, as it travels: numbers of fixed size, then named texts.
//!
//! ```text
//!  | numbers, 8 bytes each, little endian | (tag: 1, len: 2, bytes)... |
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::{
    config::Protocol,
    model::reason::{CloseReason, Fault},
};

/// Longest text that is kept, in bytes; longer ones end with an ellipsis of three dots.
const TEXT_BYTES_MAX: usize = 2048;

/// A draft whose texts needed more is not kept for reuse.
const DRAFT_BYTES_KEPT: usize = 4 << 10;

macro_rules! texts {
    ($($(#[doc = $doc:literal])+ $variant:ident;)+) => {
        /// What a text is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Text { $($(#[doc = $doc])+ $variant,)+ }

        impl Text {
            const COUNT: usize = [$(Self::$variant),+].len();
        }
    };
}

texts! {
    /// Name of the listener.
    Listener;
    /// Method.
    Method;
    /// Host and port that the request is for.
    Authority;
    /// Path without query.
    Path;
    /// Query without `?`.
    Query;
    /// `X-Request-Id`.
    RequestId;
    /// `User-Agent`.
    UserAgent;
    /// `Referer`.
    Referer;
    /// Name of the route.
    Route;
    /// Name of the pool.
    Pool;
    /// Backend of the last attempt.
    Backend;
    /// What the connection has changed to.
    Upgrade;
    /// TLS server name.
    Sni;
    /// Version and cipher suite of TLS, with a space between.
    Tls;
    /// What became of it where it came before hands were shaken.
    EarlyData;
}

/// Version of a request whose head was complete and sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl HttpVersion {
    /// As it is written in a request line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
}

/// Everything but the texts. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When the first byte came (a relay: when it was accepted), since an instant that sender and receiver share.
    pub begun_us: u64,
    /// The client.
    pub client: SocketAddr,
    /// What the listener speaks.
    pub protocol: Protocol,
    /// Number of the worker.
    pub worker: u16,
    /// `None`: the head was not complete or not sound.
    pub version: Option<HttpVersion>,
    /// 0: none was sent.
    pub status: u16,
    /// Backends tried.
    pub attempts: u32,
    /// The last attempt ran on a kept connection.
    pub reused: bool,
    /// Why it did not end well.
    pub reason: Option<CloseReason>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Of those, the response head.
    pub sent_head: u64,
    /// See `config::LogField`; `None`: it did not come that far.
    pub head_us: Option<u64>,
    /// The same.
    pub queue_us: Option<u64>,
    /// The same.
    pub connect_us: Option<u64>,
    /// The same.
    pub first_byte_us: Option<u64>,
    /// From the first byte to the end.
    pub total_us: u64,
}

const NUMBERS: usize = 14;
const NUMBERS_BYTES: usize = NUMBERS * 8;

impl Facts {
    fn numbers(&self) -> [u64; NUMBERS] {
        let optional = |time: Option<u64>| time.unwrap_or(u64::MAX);
        let address = match self.client.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        }
        .to_bits();
        let version = match self.version {
            None => 0,
            Some(HttpVersion::Http10) => 1,
            Some(HttpVersion::Http11) => 2,
            Some(HttpVersion::Http2) => 3,
        };
        let small = [
            self.client.port(),
            self.worker,
            self.status,
            self.reason.map_or(u16::MAX, |reason| reason as u16),
        ];
        let protocol = match self.protocol {
            Protocol::Http => 0,
            Protocol::Tcp => 1,
            Protocol::Udp => 2,
        };
        let flags = [version, u8::from(self.reused), protocol, 0];
        [
            self.begun_us,
            (address >> 64) as u64,
            address as u64,
            small.iter().rev().fold(0, |all, &one| all << 16 | u64::from(one)),
            u64::from(self.attempts) << 32 | u64::from(u32::from_le_bytes(flags)),
            self.received,
            self.sent,
            self.sent_head,
            optional(self.head_us),
            optional(self.queue_us),
            optional(self.connect_us),
            optional(self.first_byte_us),
            self.total_us,
            0,
        ]
    }

    fn of_numbers(numbers: [u64; NUMBERS]) -> Self {
        let optional = |time: u64| (time != u64::MAX).then_some(time);
        let [
            begun_us,
            high,
            low,
            small,
            counts,
            received,
            sent,
            sent_head,
            head,
            queue,
            connect,
            first,
            total_us,
            _,
        ] = numbers;
        let [port, worker, status, reason] = [0, 16, 32, 48].map(|shift| (small >> shift) as u16);
        let [version, reused, protocol, _] = (counts as u32).to_le_bytes();
        let ip = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).to_canonical();
        Self {
            begun_us,
            client: SocketAddr::new(ip, port),
            protocol: match protocol {
                1 => Protocol::Tcp,
                2 => Protocol::Udp,
                _ => Protocol::Http,
            },
            worker,
            version: match version {
                1 => Some(HttpVersion::Http10),
                2 => Some(HttpVersion::Http11),
                3 => Some(HttpVersion::Http2),
                _ => None,
            },
            status,
            attempts: (counts >> 32) as u32,
            reused: reused == 1,
            reason: CloseReason::ALL.get(usize::from(reason)).copied(),
            received,
            sent,
            sent_head,
            head_us: optional(head),
            queue_us: optional(queue),
            connect_us: optional(connect),
            first_byte_us: optional(first),
            total_us,
        }
    }
}

/// A record in the making: texts are noted as they become known, facts at the end. Its memory is kept for the next.
#[derive(Debug, Default)]
pub struct Draft {
    bytes: Vec<u8>,
    /// Where the backend of an earlier attempt stands: the last text, if it is there.
    backend_at: Option<usize>,
}

impl Draft {
    /// Makes it empty.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(NUMBERS_BYTES, 0);
        self.backend_at = None;
    }

    /// Notes a text. A [`Text::Backend`] takes the place of the one before it; between the two there may be nothing else.
    pub fn note(&mut self, text: Text, bytes: &[u8]) {
        if let (Text::Backend, Some(at)) = (text, self.backend_at) {
            self.bytes.truncate(at);
        }
        self.backend_at = (text == Text::Backend).then_some(self.bytes.len());
        let kept = bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes);
        let end: &[u8] = if kept.len() < bytes.len() { b"..." } else { b"" };
        self.bytes.push(text as u8);
        self.bytes.extend_from_slice(&((kept.len() + end.len()) as u16).to_le_bytes());
        self.bytes.extend_from_slice(kept);
        self.bytes.extend_from_slice(end);
    }

    /// The record.
    pub fn encode(&mut self, facts: &Facts) -> &[u8] {
        for (place, number) in self.bytes.chunks_exact_mut(8).zip(facts.numbers()) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        &self.bytes
    }

    /// Whether it is small enough to be kept for reuse.
    pub fn is_small(&self) -> bool {
        self.bytes.capacity() <= DRAFT_BYTES_KEPT
    }
}

/// A record as it is read.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Everything but the texts.
    pub facts: Facts,
    texts: [Option<&'a [u8]>; Text::COUNT],
}

impl<'a> Record<'a> {
    /// Reads what [`Draft::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (numbers, mut rest) = bytes.split_at_checked(NUMBERS_BYTES)?;
        let mut read = [0; NUMBERS];
        for (number, place) in read.iter_mut().zip(numbers.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*place);
        }
        let mut texts = [None; Text::COUNT];
        while let Some((&[tag, low, high], behind)) = rest.split_first_chunk() {
            let (text, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
            *texts.get_mut(usize::from(tag))? = Some(text);
            rest = behind;
        }
        rest.is_empty().then_some(Self { facts: Facts::of_numbers(read), texts })
    }

    /// A text that was noted.
    pub fn text(&self, text: Text) -> Option<&'a [u8]> {
        self.texts[text as usize]
    }

    /// Whose fault it was, by name.
    pub fn fault(&self) -> Option<&'static str> {
        self.facts.reason.map(|reason| match reason.fault() {
            Fault::Downstream => "downstream",
            Fault::Upstream => "upstream",
            Fault::Us => "us",
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::log) fn facts() -> Facts {
        Facts {
            begun_us: 2_500_000,
            client: "198.51.100.7:40000".parse().unwrap(),
            protocol: Protocol::Http,
            worker: 3,
            version: Some(HttpVersion::Http11),
            status: 200,
            attempts: 1,
            reused: true,
            reason: None,
            received: 120,
            sent: 4500,
            sent_head: 200,
            head_us: Some(10),
            queue_us: Some(0),
            connect_us: Some(2_345),
            first_byte_us: Some(1_000),
            total_us: 1_234_567,
        }
    }

    proptest! {
        #[test]
        fn facts_survive_the_way(
            times in any::<[Option<u32>; 4]>(),
            counts in any::<[u64; 3]>(),
            status in any::<u16>(),
            attempts in any::<u32>(),
            reason in proptest::sample::select(CloseReason::ALL),
            flags in any::<[bool; 3]>(),
            ip in any::<std::net::IpAddr>(),
        ) {
            let [head_us, queue_us, connect_us, first_byte_us] = times.map(|time| time.map(u64::from));
            let facts = Facts {
                client: SocketAddr::new(ip.to_canonical(), 7),
                protocol: [Protocol::Http, Protocol::Tcp, Protocol::Udp, Protocol::Udp]
                    [usize::from(flags[0]) + 2 * usize::from(flags[1])],
                version: flags[1].then_some(HttpVersion::Http10),
                reused: flags[2],
                status, attempts, head_us, queue_us, connect_us, first_byte_us,
                reason: flags[0].then_some(reason),
                received: counts[0], sent: counts[1], sent_head: counts[2],
                ..facts()
            };
            let mut draft = Draft::default();
            draft.clear();
            prop_assert_eq!(Record::decode(draft.encode(&facts)).unwrap().facts, facts);
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn texts_survive_the_way_and_a_retry_replaces_the_backend() {
        let mut draft = Draft::default();
        for _ in 0..2 {
            draft.clear();
            draft.note(Text::Path, b"/a");
            draft.note(Text::UserAgent, &[b'x'; 5000]);
            draft.note(Text::Pool, b"");
            draft.note(Text::Backend, b"10.0.0.1:80");
            draft.note(Text::Backend, b"10.0.0.2:80");
            draft.note(Text::Upgrade, b"websocket");
            let record = Record::decode(draft.encode(&facts())).unwrap();
            assert_eq!(record.text(Text::Path), Some(&b"/a"[..]));
            assert_eq!(record.text(Text::Pool), Some(&b""[..]));
            assert_eq!(record.text(Text::Backend), Some(&b"10.0.0.2:80"[..]));
            assert_eq!(record.text(Text::Upgrade), Some(&b"websocket"[..]));
            assert_eq!(record.text(Text::Route), None);
            let long = record.text(Text::UserAgent).unwrap();
            assert!(long.len() == TEXT_BYTES_MAX + 3 && long.ends_with(b"x..."));
        }
    }
}
