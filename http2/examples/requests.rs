//! What a request costs: this engine and the `h2` crate, in one process, from the same bytes to the same answer.
//!
//! A client's bytes are written beforehand. Each side reads them, writes each head down as HTTP/1.1 does, and answers with
//! a head of some fields and 200 bytes. Counted is the time that the thread was on a processor.
//!
//! `cargo run --release -p lb-http2 --example requests [ROUNDS]`

use std::{
    cell::RefCell,
    error::Error,
    fs,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use h2::server;
use lb_http2::{By, Code, Connection, Events, Flaw, Head, Request, Settings, Stream, TooLarge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

type Outcome<T> = Result<T, Box<dyn Error>>;

const BODY: &[u8] = &[b'x'; 200];
const ASKED: &[(&str, &str)] = &[
    ("user-agent", "h2load nghttp2/1.59.0"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate, br"),
    ("x-request-id", "0123456789abcdef"),
    ("cookie", "session=0123456789abcdef0123456789abcdef"),
];
const ANSWERED: &[(&str, &str)] = &[
    ("Server", "nginx/1.24.0"),
    ("Date", "Fri, 01 Mar 2024 12:00:00 GMT"),
    ("Content-Type", "application/octet-stream"),
    ("Content-Length", "200"),
    ("Last-Modified", "Fri, 01 Mar 2024 11:00:00 GMT"),
    ("Connection", "keep-alive"),
    ("ETag", "\"65e1b0f0-c8\""),
    ("Accept-Ranges", "bytes"),
    ("Via", "1.1 lb"),
];

/// What a client sends: what it says first, and `rounds` times as many requests as `batch` says.
fn client(rounds: usize, batch: usize) -> Outcome<Vec<Vec<u8>>> {
    let mut connection = Connection::client(Settings::default());
    let mut sent = Vec::new();
    let mut take = |connection: &mut Connection| {
        let mut bytes = Vec::new();
        connection.take_pending(&mut bytes);
        sent.push(bytes);
    };
    take(&mut connection);
    for round in 0..rounds {
        for at in 0..batch {
            let path = format!("/files/{}", (round * batch + at) % 1000);
            let request = Request {
                method: b"GET",
                scheme: b"https",
                authority: b"www.example.com",
                path: path.as_bytes(),
                protocol: b"",
            };
            let asked = connection.send_request(&request, true, |fields| {
                for (name, value) in ASKED {
                    let _ = fields.push(name.as_bytes(), value.as_bytes());
                }
            });
            let stream = asked.map_err(|refusal| format!("{refusal:?}"))?;
            // Nobody answers this client; its own end of the stream is of no matter here.
            let mut bytes = Vec::new();
            connection.take_pending(&mut bytes);
            connection.send_reset(stream, Code::CANCEL);
            connection.consume(usize::MAX);
            sent.push(bytes);
        }
        // One read for all of a round, with the window that its answers take.
        let from = sent.len() - batch;
        let mut bytes = sent.drain(from..).collect::<Vec<_>>().concat();
        bytes.extend_from_slice(&[0, 0, 4, 8, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&((batch * BODY.len()) as u32).to_be_bytes());
        sent.push(bytes);
    }
    Ok(sent)
}

/// Heads as HTTP/1.1 has them, and the streams that they came on.
#[derive(Default)]
struct Asked {
    text: Vec<u8>,
    streams: Vec<Stream>,
}

fn push(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}

impl Events for Asked {
    fn head(&mut self, stream: Stream, head: &Head<'_>, _: bool) {
        let path = head.path().unwrap_or_default();
        let host = head.authority().unwrap_or_default();
        for part in [head.method(), b" ", path, b" HTTP/1.1\r\nhost: ", host, b"\r\n"] {
            self.text.extend_from_slice(part);
        }
        head.fields().for_each(|field| push(&mut self.text, field.name, field.value));
        self.streams.push(stream);
    }
    fn too_large(&mut self, _: Stream, _: TooLarge, _: bool) {}
    fn data(&mut self, _: Stream, _: &[u8], _: bool) {}
    fn trailers(&mut self, _: Stream, _: &Head<'_>) {}
    fn reset(&mut self, _: Stream, _: Code, _: By) {}
    fn rejected(&mut self, _: u32, _: Flaw) {}
    fn window(&mut self, _: Stream) {}
    fn settings(&mut self) {}
    fn goaway(&mut self, _: u32, _: Code) {}
}

/// Bytes that were sent, and those of heads.
fn engine(sent: &[Vec<u8>]) -> Outcome<(usize, usize)> {
    let mut connection = Connection::server(Settings::default());
    let (mut asked, mut out) = (Asked::default(), Vec::new());
    let (mut sent_bytes, mut text_bytes) = (0, 0);
    let now = Instant::now();
    for bytes in sent {
        connection.receive(bytes, now, &mut asked).map_err(|fault| format!("{fault:?}"))?;
        for stream in asked.streams.drain(..) {
            let answered = connection.send_response(stream, 200, false, |fields| {
                for (name, value) in ANSWERED {
                    let _ = fields.push(name.as_bytes(), value.as_bytes());
                }
            });
            answered.map_err(|_| "gone")?;
            connection.send_data(stream, BODY, true).map_err(|_| "gone")?;
        }
        text_bytes += asked.text.len();
        asked.text.clear();
        connection.take_pending(&mut out);
        sent_bytes += out.len();
    }
    Ok((sent_bytes, text_bytes))
}

/// A wire of which one end is a buffer, and the other is nobody.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<(Vec<u8>, usize, usize)>>);

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (bytes, read, _) = &mut *self.0.borrow_mut();
        if *read == bytes.len() {
            return Poll::Pending;
        }
        let len = to.remaining().min(bytes.len() - *read);
        to.put_slice(&bytes[*read..*read + len]);
        *read += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.borrow_mut().2 += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn write_down(request: &http::Request<h2::RecvStream>, text: &mut Vec<u8>) {
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let host = request.uri().authority().map_or("", |host| host.as_str());
    for part in [request.method().as_str(), " ", path, " HTTP/1.1\r\nhost: ", host, "\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    request.headers().iter().for_each(|(name, value)| push(text, name.as_str().as_bytes(), value.as_bytes()));
}

fn answer() -> Outcome<http::Response<()>> {
    let mut response = http::Response::new(());
    for (name, value) in ANSWERED.iter().filter(|(name, _)| *name != "Connection") {
        let name = http::HeaderName::from_bytes(name.as_bytes())?;
        response.headers_mut().append(name, http::HeaderValue::from_bytes(value.as_bytes())?);
    }
    Ok(response)
}

/// The same of the `h2` crate.
fn h2_crate(sent: &[Vec<u8>]) -> Outcome<(usize, usize)> {
    let wire = Wire::default();
    let mut task = Context::from_waker(Waker::noop());
    let mut shaking = Box::pin(
        server::Builder::new()
            .initial_window_size(256 << 10)
            .initial_connection_window_size(1 << 20)
            .max_concurrent_streams(1000)
            .handshake::<_, Bytes>(wire.clone()),
    );
    let (mut connection, mut text, mut text_bytes) = (None, Vec::new(), 0);
    for bytes in sent {
        {
            let (buffer, read, _) = &mut *wire.0.borrow_mut();
            (*read, _) = (0, buffer.clear());
            buffer.extend_from_slice(bytes);
        }
        if connection.is_none() {
            let Poll::Ready(shaken) = shaking.as_mut().poll(&mut task) else { continue };
            connection = Some(shaken?);
        }
        let Some(connection) = &mut connection else { continue };
        while let Poll::Ready(Some(asked)) = connection.poll_accept(&mut task) {
            let (request, mut respond) = asked?;
            write_down(&request, &mut text);
            let mut stream = respond.send_response(answer()?, false)?;
            stream.reserve_capacity(BODY.len());
            stream.send_data(Bytes::copy_from_slice(BODY), true)?;
        }
        text_bytes += text.len();
        text.clear();
    }
    let sent = wire.0.borrow().2;
    Ok((sent, text_bytes))
}

/// Nanoseconds that the thread was on a processor.
fn cpu_ns() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn measured(
    run: fn(&[Vec<u8>]) -> Outcome<(usize, usize)>,
    sent: &[Vec<u8>],
) -> Outcome<(u64, usize, usize)> {
    let start = cpu_ns()?;
    let (bytes, text) = run(sent)?;
    Ok((cpu_ns()? - start, bytes, text))
}

fn main() -> Outcome<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(9), |rounds| rounds.parse())?;
    for batch in [1, 4, 32] {
        let requests = 64_000;
        let sent = client(requests / batch, batch)?;
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (at, run) in [engine, h2_crate].into_iter().enumerate() {
                let (ns, bytes, text) = measured(run, &sent)?;
                times[at].push((ns / requests as u64, bytes / requests, text / requests));
            }
        }
        times.iter_mut().for_each(|times| times.sort_unstable());
        let [ours, theirs] =
            times.map(|times| (times[times.len() / 2], times[0].0, times[times.len() - 1].0));
        println!(
            "{batch:>2} at once: engine {} ns ({}-{}), {} B; h2 {} ns ({}-{}), {} B; ratio {:.2}; heads of {} and {} B",
            ours.0.0,
            ours.1,
            ours.2,
            ours.0.1,
            theirs.0.0,
            theirs.1,
            theirs.2,
            theirs.0.1,
            ours.0.0 as f64 / theirs.0.0 as f64,
            ours.0.2,
            theirs.0.2,
        );
    }
    Ok(())
}
