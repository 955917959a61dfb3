//! What speaks HTTP to a worker in tests: a simple reader of messages, clients and backends.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::{Fixture, backend};
use crate::config::{Limits, Protocol};

/// A message as the test's own simple reader sees it.
pub(super) struct Message {
    pub(super) start: String,
    pub(super) fields: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|line| line.eq_ignore_ascii_case(field))
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        value(&self.fields, name)
    }
}

fn value<'a>(fields: &'a [String], name: &str) -> Option<&'a str> {
    fields.iter().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    match from.read_line(&mut line)? {
        0 => Ok(None),
        _ => line.strip_suffix("\r\n").map(|line| Some(line.to_owned())).ok_or_else(|| broken("half a line")),
    }
}

fn try_read_head(from: &mut impl BufRead) -> io::Result<Option<(String, Vec<String>)>> {
    let mut lines = Vec::new();
    loop {
        match line(from)?.as_deref() {
            None if lines.is_empty() => return Ok(None),
            None => return Err(broken("half a head")),
            Some("") => break,
            Some(text) => lines.push(text.to_owned()),
        }
    }
    if lines.is_empty() {
        return Err(broken("an empty head"));
    }
    Ok(Some((lines.remove(0), lines)))
}

pub(super) fn read_head(from: &mut impl BufRead) -> Option<(String, Vec<String>)> {
    try_read_head(from).unwrap()
}

/// Reads one message, its body by Content-Length or chunked; an error where it breaks off or is malformed.
pub(super) fn try_read_message(from: &mut impl BufRead) -> io::Result<Option<Message>> {
    let Some((start, fields)) = try_read_head(from)? else { return Ok(None) };
    let mut body = Vec::new();
    if let Some(length) = value(&fields, "content-length") {
        body.resize(length.parse().map_err(|_| broken("length"))?, 0);
        from.read_exact(&mut body)?;
    } else if value(&fields, "transfer-encoding").is_some() {
        loop {
            let size = line(from)?.ok_or_else(|| broken("no chunk"))?;
            let len = usize::from_str_radix(&size, 16).map_err(|_| broken("chunk size"))?;
            let start = body.len();
            body.resize(start + len, 0);
            from.read_exact(&mut body[start..])?;
            if line(from)?.as_deref() != Some("") {
                return Err(broken("chunk end"));
            }
            if len == 0 {
                break;
            }
        }
    }
    Ok(Some(Message { start, fields, body }))
}

pub(super) fn read_message(from: &mut impl BufRead) -> Option<Message> {
    try_read_message(from).unwrap()
}

/// A backend that keeps its connections and answers each request with `respond(request)`.
pub(super) fn responder(respond: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    backend(move |stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(request) = read_message(&mut reader) {
            if writer.write_all(&respond(&request)).is_err() {
                return;
            }
        }
    })
}

pub(super) fn ok(body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

/// A client's connection with a buffered reader.
pub(super) struct Client {
    pub(super) reader: BufReader<TcpStream>,
    pub(super) writer: TcpStream,
}

impl Client {
    pub(super) fn new(fixture: &Fixture) -> Self {
        Self::over(fixture.connect())
    }

    pub(super) fn over(writer: TcpStream) -> Self {
        Self { reader: BufReader::new(writer.try_clone().unwrap()), writer }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(bytes.as_ref()).unwrap();
    }

    pub(super) fn receive(&mut self) -> Message {
        read_message(&mut self.reader).expect("a response")
    }

    pub(super) fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        self.receive()
    }

    pub(super) fn is_closed(&mut self) -> bool {
        matches!(self.reader.read(&mut [0; 1]), Ok(0))
    }
}

pub(super) fn http(backends: &[SocketAddr]) -> Fixture {
    Fixture::start(Protocol::Http, backends, Limits::default())
}
