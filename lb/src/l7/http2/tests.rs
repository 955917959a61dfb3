//! Heads of HTTP/2 for tests, through the engine, as peers send them: with whatever nobody should.

use std::time::Instant;

use lb_http2::{By, Code, Connection, Events, Flaw, Head, Request, Settings, Stream, TooLarge};

use super::request::reason;
use crate::model::reason::CloseReason;

/// A field: its name and value.
pub(super) type Pair<'a> = (&'a str, &'a [u8]);

/// Those of a request, with `:scheme` and `:path`, where those are there.
pub(super) fn pseudo<'a>(
    method: &'a str,
    target: Option<(&'a str, &'a str)>,
    authority: &'a str,
) -> Vec<Pair<'a>> {
    let mut all = vec![(":method", method.as_bytes())];
    if let Some((scheme, path)) = target {
        all.extend([(":scheme", scheme.as_bytes()), (":path", path.as_bytes())]);
    }
    if !authority.is_empty() {
        all.push((":authority", authority.as_bytes()));
    }
    all
}

/// What is made of the first head that comes, or of the trailers behind it.
struct Taken<F, T> {
    make: Option<F>,
    made: Option<Result<T, Flaw>>,
    of_trailers: bool,
}

impl<F: FnOnce(&Head<'_>) -> T, T> Taken<F, T> {
    fn take(&mut self, head: &Head<'_>) {
        self.made = self.make.take().map(|make| Ok(make(head)));
    }
}

impl<F: FnOnce(&Head<'_>) -> T, T> Events for Taken<F, T> {
    fn head(&mut self, _: Stream, head: &Head<'_>, _: bool) {
        if !self.of_trailers {
            self.take(head);
        }
    }

    fn trailers(&mut self, _: Stream, trailers: &Head<'_>) {
        self.take(trailers);
    }

    fn reset(&mut self, _: Stream, _: Code, by: By) {
        if let By::Us(flaw) = by {
            self.made = Some(Err(flaw));
        }
    }

    fn rejected(&mut self, _: u32, flaw: Flaw) {
        self.made = Some(Err(flaw));
    }

    fn too_large(&mut self, _: Stream, _: TooLarge, _: bool) {}
    fn data(&mut self, _: Stream, _: &[u8], _: bool) {}
    fn window(&mut self, _: Stream) {}
    fn settings(&mut self) {}
    fn goaway(&mut self, _: u32, _: Code) {}
}

/// HEADERS on stream 1, each field as a literal that is not remembered.
fn headers(fields: &[Pair<'_>], ends: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value] {
            // RFC 7541, 5.1.
            let len = text.len();
            if len < 127 {
                block.push(len as u8);
            } else {
                block.extend([127, (len - 127) as u8 | 0x80, ((len - 127) >> 7) as u8]);
            }
            block.extend_from_slice(text);
        }
    }
    frame(1, if ends { 5 } else { 4 }, 1, &block)
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
}

fn settings() -> Settings {
    Settings { head_fields_max: 1 << 10, ..Settings::default() }
}

fn client() -> Connection {
    Connection::client(settings())
}

/// What `make` makes of a request with these fields, or why it is refused.
pub(super) fn of_request<T>(
    fields: &[Pair<'_>],
    ends: bool,
    make: impl FnOnce(&Head<'_>) -> Result<T, CloseReason>,
) -> Result<T, CloseReason> {
    let mut taken = Taken { make: Some(make), made: None, of_trailers: false };
    let mut server = Connection::server(settings());
    server.receive(client().pending(), Instant::now(), &mut taken).unwrap();
    server.receive(&headers(fields, ends), Instant::now(), &mut taken).unwrap();
    taken.made.unwrap().unwrap_or_else(|flaw| Err(reason(flaw)))
}

/// What `make` makes of a response with these fields, or why it is refused.
pub(super) fn of_response<T>(
    fields: &[Pair<'_>],
    ends: bool,
    was_head: bool,
    make: impl FnOnce(&Head<'_>) -> Result<T, CloseReason>,
) -> Result<T, CloseReason> {
    let mut taken = Taken { make: Some(make), made: None, of_trailers: false };
    let mut client = client();
    client.receive(&frame(4, 0, 0, &[]), Instant::now(), &mut taken).unwrap();
    let method: &[u8] = if was_head { b"HEAD" } else { b"GET" };
    let request = Request { method, scheme: b"http", authority: b"a", path: b"/", protocol: b"" };
    client.send_request(&request, true, |_| {}).unwrap();
    client.receive(&headers(fields, ends), Instant::now(), &mut taken).unwrap();
    taken.made.unwrap().unwrap_or(Err(CloseReason::BadResponse))
}

/// What `make` makes of trailers with these fields, or why they are refused.
pub(super) fn of_trailers<T>(
    fields: &[Pair<'_>],
    make: impl FnOnce(&Head<'_>) -> Result<T, CloseReason>,
) -> Result<T, CloseReason> {
    let mut taken = Taken { make: Some(make), made: None, of_trailers: true };
    let mut server = Connection::server(settings());
    server.receive(client().pending(), Instant::now(), &mut taken).unwrap();
    let head = headers(&pseudo("POST", Some(("http", "/")), "a"), false);
    server.receive(&[head, headers(fields, true)].concat(), Instant::now(), &mut taken).unwrap();
    taken.made.unwrap().unwrap_or(Err(CloseReason::Trailer))
}

/// A head or trailers as the engine sends them, as a peer of the engine's reads them.
pub(super) fn passed(write: impl FnOnce(&mut Connection, Stream)) -> Vec<(String, String)> {
    let (mut client, mut server) = (client(), Connection::server(settings()));
    let request = Request { method: b"GET", scheme: b"http", authority: b"a", path: b"/", protocol: b"" };
    client.send_request(&request, true, |_| {}).unwrap();
    let mut asked = Asked::default();
    server.receive(client.pending(), Instant::now(), &mut asked).unwrap();
    write(&mut server, asked.stream.unwrap());
    client.receive(server.pending(), Instant::now(), &mut asked).unwrap();
    asked.fields
}

/// A request as the engine sends it, pseudo header fields first.
pub(super) fn passed_request(write: impl FnOnce(&mut Connection)) -> Vec<(String, String)> {
    let (mut client, mut server) = (client(), Connection::server(settings()));
    write(&mut client);
    let mut asked = Asked::default();
    server.receive(client.pending(), Instant::now(), &mut asked).unwrap();
    asked.fields
}

/// What was read last.
#[derive(Default)]
struct Asked {
    stream: Option<Stream>,
    fields: Vec<(String, String)>,
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

impl Asked {
    fn take(&mut self, head: &Head<'_>) {
        self.fields.clear();
        let status = if head.status() > 0 { head.status().to_string() } else { String::new() };
        for (name, value) in [
            (":status", Some(status.as_bytes())),
            (":method", Some(head.method())),
            (":scheme", head.scheme()),
            (":authority", head.authority()),
            (":path", head.path()),
            (":protocol", head.protocol()),
        ] {
            let value = value.filter(|value| !value.is_empty());
            self.fields.extend(value.map(|value| (name.to_owned(), text(value))));
        }
        self.fields.extend(head.fields().map(|field| (text(field.name), text(field.value))));
    }
}

impl Events for Asked {
    fn head(&mut self, stream: Stream, head: &Head<'_>, _: bool) {
        self.stream = Some(stream);
        self.take(head);
    }

    fn trailers(&mut self, _: Stream, trailers: &Head<'_>) {
        self.take(trailers);
    }

    fn too_large(&mut self, _: Stream, _: TooLarge, _: bool) {}
    fn data(&mut self, _: Stream, _: &[u8], _: bool) {}
    fn reset(&mut self, _: Stream, _: Code, _: By) {}
    fn rejected(&mut self, _: u32, _: Flaw) {}
    fn window(&mut self, _: Stream) {}
    fn settings(&mut self) {}
    fn goaway(&mut self, _: u32, _: Code) {}
}
