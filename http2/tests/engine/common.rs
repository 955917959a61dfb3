//! Frames made by hand, and whoever writes down what a connection tells.

use std::time::Instant;

use lb_http2::{By, Code, Connection, Events, Fault, Flaw, Head, Settings, Stream, TooLarge};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const UNKNOWN: u8 = 0x42;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field in full, in no code, to be remembered by nobody.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        assert!(text.len() < 127);
        [&[text.len() as u8], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)])
}

pub(crate) fn number(kind: u8, stream: u32, number: u32) -> Vec<u8> {
    frame(kind, 0, stream, &number.to_be_bytes())
}

pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// What a client says first.
pub(crate) fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat()
}

/// What was told, in the order in which it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Head(u32, String, bool),
    TooLarge(u32, TooLarge, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32, String),
    Reset(u32, Code, By),
    Rejected(u32, Flaw),
    Window(u32),
    Settings,
    GoAway(u32, Code),
}

/// Writes it down; DATA that follows DATA is put together.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) told: Vec<Told>,
    /// Handles of streams whose heads came.
    pub(crate) streams: Vec<Stream>,
    /// Bytes of content, to be released.
    pub(crate) held: Vec<(Stream, usize)>,
}

pub(crate) fn text(head: &Head<'_>) -> String {
    let mut out = String::new();
    if head.status() != 0 {
        out += &format!("{} ", head.status());
    }
    if !head.method().is_empty() {
        let part = |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or(b"-")).into_owned();
        out += &format!(
            "{} {} {} {} ",
            part(Some(head.method())),
            part(head.scheme()),
            part(head.authority()),
            part(head.path())
        );
    }
    for field in head.fields() {
        out += &format!("{}={} ", String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value));
    }
    out
}

impl Events for Log {
    fn head(&mut self, stream: Stream, head: &Head<'_>, ends: bool) {
        self.streams.push(stream);
        self.told.push(Told::Head(stream.id(), text(head), ends));
    }
    fn too_large(&mut self, stream: Stream, what: TooLarge, ends: bool) {
        self.streams.push(stream);
        self.told.push(Told::TooLarge(stream.id(), what, ends));
    }
    fn data(&mut self, stream: Stream, data: &[u8], ends: bool) {
        self.held.push((stream, data.len()));
        if let Some(Told::Data(id, bytes, has_ended)) = self.told.last_mut()
            && *id == stream.id()
        {
            bytes.extend_from_slice(data);
            *has_ended = ends;
        } else {
            self.told.push(Told::Data(stream.id(), data.to_vec(), ends));
        }
    }
    fn trailers(&mut self, stream: Stream, trailers: &Head<'_>) {
        self.told.push(Told::Trailers(stream.id(), text(trailers)));
    }
    fn reset(&mut self, stream: Stream, code: Code, by: By) {
        self.told.push(Told::Reset(stream.id(), code, by));
    }
    fn rejected(&mut self, id: u32, flaw: Flaw) {
        self.told.push(Told::Rejected(id, flaw));
    }
    fn window(&mut self, stream: Stream) {
        self.told.push(Told::Window(stream.id()));
    }
    fn settings(&mut self) {
        self.told.push(Told::Settings);
    }
    fn goaway(&mut self, last: u32, code: Code) {
        self.told.push(Told::GoAway(last, code));
    }
}

/// A connection, and what it has told and sent.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) log: Log,
}

impl Peer {
    /// A server whose client has said what it says first.
    pub(crate) fn server(settings: Settings) -> Self {
        let mut peer = Self { connection: Connection::server(settings), log: Log::default() };
        peer.receive(&hello()).unwrap();
        peer.sent();
        peer.log.told.clear();
        peer
    }

    /// A client whose server has.
    pub(crate) fn client(settings: Settings) -> Self {
        let mut peer = Self { connection: Connection::client(settings), log: Log::default() };
        peer.receive(&hello()[PREFACE.len()..]).unwrap();
        peer.sent();
        peer.log.told.clear();
        peer
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.connection.receive(bytes, Instant::now(), &mut self.log)
    }

    /// The frames that it has to send.
    pub(crate) fn sent(&mut self) -> Vec<Frame> {
        let bytes = self.connection.pending().to_vec();
        self.connection.consume(bytes.len());
        frames(&bytes)
    }

    pub(crate) fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.log.told)
    }

    /// What the last bytes came to for a stream, on the wire.
    pub(crate) fn answer(&mut self, stream: u32) -> Answer {
        let sent = self.sent();
        for frame in &sent {
            match frame.kind {
                GOAWAY => return Answer::GoAway(Code(number_at(&frame.payload, 4))),
                RST_STREAM if frame.stream == stream => {
                    return Answer::Reset(Code(number_at(&frame.payload, 0)));
                }
                _ => {}
            }
        }
        Answer::Nothing
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Reset(Code),
    GoAway(Code),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn number_at(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}

/// All frames in these bytes, behind a preface or not.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = number_at(rest, 0) as usize >> 8;
        let (kind, flags, stream) = (rest[3], rest[4], number_at(rest, 5));
        frames.push(Frame { kind, flags, stream, payload: rest[9..9 + len].to_vec() });
        rest = &rest[9 + len..];
    }
    frames
}
