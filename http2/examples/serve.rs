//! A server of one thread: each connection is served to its end before the next. `/N` is answered with N bytes, everything
//! else with what came along.
//!
//! `cargo run --release -p lb-http2 --example serve [ADDRESS]`

use std::{
    error::Error,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use lb_http2::{By, Code, Connection, Events, Fault, Flaw, Head, Settings, Stream, TooLarge};

/// An answer under way.
#[derive(Debug)]
struct Answer {
    stream: Stream,
    /// What came, or as many bytes as were asked for.
    content: Vec<u8>,
    sent: usize,
    is_asked: bool,
    has_begun: bool,
}

/// By the slots of their streams.
#[derive(Debug, Default)]
struct Answers {
    going: Vec<Option<Answer>>,
    /// Those that have something to do, by slot.
    ready: Vec<usize>,
    held: Vec<(Stream, usize)>,
}

impl Answers {
    fn of(&mut self, stream: Stream) -> Option<&mut Answer> {
        self.going.get_mut(stream.slot())?.as_mut().filter(|answer| answer.stream == stream)
    }

    fn ask(&mut self, stream: Stream, is_whole: bool) {
        if let Some(answer) = self.of(stream).filter(|_| is_whole) {
            answer.is_asked = true;
            self.ready.push(stream.slot());
        }
    }

    fn begin(&mut self, stream: Stream, content: Vec<u8>, ends: bool) {
        if self.going.len() <= stream.slot() {
            self.going.resize_with(stream.slot() + 1, || None);
        }
        if let Some(place) = self.going.get_mut(stream.slot()) {
            *place = Some(Answer { stream, content, sent: 0, is_asked: false, has_begun: false });
        }
        self.ask(stream, ends);
    }
}

impl Events for Answers {
    fn head(&mut self, stream: Stream, head: &Head<'_>, ends: bool) {
        let path = head.path().and_then(|path| str::from_utf8(path.get(1..)?).ok());
        let len = path.and_then(|path| path.parse().ok()).unwrap_or(0_usize);
        self.begin(stream, vec![b'x'; len.min(1 << 30)], ends);
    }
    fn too_large(&mut self, stream: Stream, _: TooLarge, ends: bool) {
        self.begin(stream, b"too large".to_vec(), ends);
    }
    fn data(&mut self, stream: Stream, data: &[u8], ends: bool) {
        self.held.push((stream, data.len()));
        if let Some(answer) = self.of(stream) {
            answer.content.extend_from_slice(data);
        }
        self.ask(stream, ends);
    }
    fn trailers(&mut self, stream: Stream, _: &Head<'_>) {
        self.ask(stream, true);
    }
    fn reset(&mut self, stream: Stream, _: Code, _: By) {
        if self.of(stream).is_some()
            && let Some(place) = self.going.get_mut(stream.slot())
        {
            *place = None;
        }
    }
    fn rejected(&mut self, _: u32, _: Flaw) {}
    fn window(&mut self, stream: Stream) {
        self.ready.push(stream.slot());
    }
    fn settings(&mut self) {}
    fn goaway(&mut self, _: u32, _: Code) {}
}

/// Sends what can be sent.
fn answer(connection: &mut Connection, answers: &mut Answers) {
    for (stream, len) in answers.held.drain(..) {
        connection.release(stream, len);
    }
    for slot in answers.ready.drain(..) {
        let Some(place) = answers.going.get_mut(slot) else { continue };
        let Some(answer) = place.as_mut().filter(|answer| answer.is_asked) else { continue };
        if !std::mem::replace(&mut answer.has_begun, true) {
            let length = answer.content.len().to_string();
            let _ = connection.send_response(answer.stream, 200, false, |fields| {
                let _ = fields.push(b"server", b"lb-http2");
                let _ = fields.push(b"content-length", length.as_bytes());
            });
        }
        let rest = answer.content.get(answer.sent..).unwrap_or_default();
        match connection.send_data(answer.stream, rest, true) {
            Ok(len) if len < rest.len() => answer.sent += len,
            _ => *place = None,
        }
    }
}

fn serve(mut wire: TcpStream) -> Result<Option<Fault>, std::io::Error> {
    wire.set_nodelay(true)?;
    let mut connection = Connection::server(Settings::default());
    let (mut answers, mut buffer) = (Answers::default(), vec![0; 64 << 10]);
    loop {
        while !connection.pending().is_empty() {
            wire.write_all(connection.pending())?;
            connection.consume(connection.pending().len());
            connection.resume(&mut answers);
            answer(&mut connection, &mut answers);
        }
        if connection.is_over() {
            return Ok(connection.fault());
        }
        let len = wire.read(&mut buffer)?;
        if len == 0 {
            return Ok(None);
        }
        // Of what is wrong GOAWAY tells.
        let _ = connection.receive(buffer.get(..len).unwrap_or_default(), Instant::now(), &mut answers);
        answer(&mut connection, &mut answers);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("http://{}/", listener.local_addr()?);
    for wire in listener.incoming() {
        match serve(wire?) {
            Ok(None) => {}
            ended => println!("{ended:?}"),
        }
    }
    Ok(())
}
