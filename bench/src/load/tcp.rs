//! Plain TCP: streams as fast as they go, and connections that live for one exchange. Both ends are threads of
//! this process, each end in its namespace, so that they can be compared byte by byte.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::pin;
use crate::netns::Namespace;

/// First byte of a connection: send until told to stop.
const DOWNLOAD: u8 = b'D';
/// First byte of a connection: send back one message, of which this is the first byte.
const ECHO: u8 = b'E';
/// The same for every message until the client's end of the connection.
const ECHO_ALL: u8 = b'A';
/// Bytes of a message that is echoed.
const MESSAGE_LEN: usize = 64;
/// What is read or written at once.
const BUFFER_LEN: usize = 256 * 1024;
/// Each takes a connection at a time: more than any scenario has open.
const THREADS: usize = 96;
/// An end that hears nothing for so long gives up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What the backend did so far.
#[derive(Debug, Default)]
struct Counters {
    /// Bytes of downloads.
    sent: AtomicU64,
    /// Messages that were sent back on connections with many.
    echoed: AtomicU64,
    /// Downloads and exchanges that ended as they should.
    finished: AtomicU64,
    /// Downloads end.
    stop: AtomicBool,
    /// The whole backend ends.
    closed: AtomicBool,
}

/// The backend: serves until dropped.
#[derive(Debug)]
pub(crate) struct TcpBackend {
    listener: TcpListener,
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
}

impl TcpBackend {
    /// Starts it in `namespace`, on `cores`.
    ///
    /// # Errors
    /// The address is taken.
    pub(crate) fn start(namespace: &Namespace, address: SocketAddr, cores: &[usize]) -> Result<Self> {
        namespace.run(|| {
            pin(cores)?;
            let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
            let mut this = Self { listener, counters: Arc::default(), threads: Vec::new() };
            for _ in 0..THREADS {
                let listener = this.listener.try_clone()?;
                let counters = Arc::clone(&this.counters);
                this.threads.push(thread::spawn(move || accept(&listener, &counters)));
            }
            Ok(this)
        })?
    }

    fn echoed(&self) -> u64 {
        self.counters.echoed.load(Ordering::SeqCst)
    }

    fn finished(&self) -> u64 {
        self.counters.finished.load(Ordering::SeqCst)
    }

    /// Waits until it has ended as many connections as the clients have.
    fn wait_for(&self, expected: u64) -> Result<()> {
        let deadline = Instant::now() + SILENCE_MAX;
        while self.finished() < expected {
            ensure!(Instant::now() < deadline, "the backend finished {} of {expected}", self.finished());
            thread::sleep(Duration::from_millis(2));
        }
        ensure!(self.finished() == expected, "the backend finished {}, clients {expected}", self.finished());
        Ok(())
    }
}

impl Drop for TcpBackend {
    fn drop(&mut self) {
        self.counters.closed.store(true, Ordering::SeqCst);
        self.counters.stop.store(true, Ordering::SeqCst);
        // Wakes all accepts.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, counters: &Counters) {
    let mut buffer = vec![b'x'; BUFFER_LEN];
    while !counters.closed.load(Ordering::SeqCst) {
        // A connection that breaks is missed in the counts: the client's end judges.
        if let Ok((stream, _)) = listener.accept()
            && serve(stream, &mut buffer, counters).is_ok()
        {
            counters.finished.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn serve(mut stream: TcpStream, buffer: &mut [u8], counters: &Counters) -> Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let mut message = [0; MESSAGE_LEN];
    stream.read_exact(&mut message[..1])?;
    match message[0] {
        DOWNLOAD => {
            while !counters.stop.load(Ordering::Relaxed) {
                let written = stream.write(buffer)?;
                counters.sent.fetch_add(written as u64, Ordering::Relaxed);
            }
            stream.shutdown(Shutdown::Write)?;
        }
        ECHO => {
            stream.read_exact(&mut message[1..])?;
            stream.write_all(&message)?;
        }
        ECHO_ALL => return echo_all(&mut stream, counters),
        other => bail!("{other} is no order"),
    }
    // Its end of the connection comes when the client has all.
    ensure!(stream.read(&mut message)? == 0, "more than was asked for");
    Ok(())
}

/// Sends back what comes, of which the first byte was read, until the client ends.
fn echo_all(stream: &mut TcpStream, counters: &Counters) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [ECHO_ALL; MESSAGE_LEN];
    let mut had = 1;
    loop {
        stream.read_exact(&mut message[had..])?;
        stream.write_all(&message)?;
        counters.echoed.fetch_add(1, Ordering::Relaxed);
        had = stream.read(&mut message)?;
        if had == 0 {
            return Ok(());
        }
    }
}

/// What a bulk run moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk {
    /// As received by the clients, and exactly as sent.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// Downloads on `streams` connections for about `length`.
///
/// # Errors
/// A stream breaks, or the bytes received are not the bytes sent: the run is void.
pub(crate) fn bulk(
    client: (&Namespace, &[usize]),
    backend: &TcpBackend,
    address: SocketAddr,
    streams: usize,
    length: Duration,
) -> Result<Bulk> {
    let counters = &backend.counters;
    let (sent, finished) = (counters.sent.load(Ordering::SeqCst), backend.finished());
    counters.stop.store(false, Ordering::SeqCst);
    let began = Instant::now();
    let received: u64 = client.0.run(|| {
        pin(client.1)?;
        let threads: Vec<_> = (0..streams).map(|_| thread::spawn(move || download(address))).collect();
        thread::sleep(length);
        counters.stop.store(true, Ordering::SeqCst);
        threads.into_iter().map(join).sum::<Result<u64>>()
    })??;
    let seconds = began.elapsed().as_secs_f64();
    backend.wait_for(finished + streams as u64)?;
    let sent = counters.sent.load(Ordering::SeqCst) - sent;
    ensure!(sent == received, "{sent} bytes were sent and {received} arrived");
    Ok(Bulk { bytes: received, seconds })
}

fn download(address: SocketAddr) -> Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(&[DOWNLOAD])?;
    let mut buffer = vec![0; BUFFER_LEN];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(received),
            read => received += read as u64,
        }
    }
}

/// What a churn run did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Churn {
    /// As the clients finished them, and exactly as many as the backend did.
    pub(crate) connections: u64,
    pub(crate) seconds: f64,
}

/// Makes connections, exchanges one message on each, and closes it; on `clients` threads, for `length`.
///
/// # Errors
/// An exchange fails, or the two ends count differently: the run is void.
pub(crate) fn churn(
    client: (&Namespace, &[usize]),
    backend: &TcpBackend,
    address: SocketAddr,
    clients: usize,
    length: Duration,
) -> Result<Churn> {
    let finished = backend.finished();
    let began = Instant::now();
    let connections: u64 = client.0.run(|| {
        pin(client.1)?;
        let deadline = began + length;
        let threads: Vec<_> =
            (0..clients).map(|_| thread::spawn(move || exchanges(address, deadline))).collect();
        threads.into_iter().map(join).sum::<Result<u64>>()
    })??;
    let seconds = began.elapsed().as_secs_f64();
    backend.wait_for(finished + connections)?;
    Ok(Churn { connections, seconds })
}

fn exchanges(address: SocketAddr, deadline: Instant) -> Result<u64> {
    let mut made = 0;
    let message = [ECHO; MESSAGE_LEN];
    let mut answer = [0; MESSAGE_LEN];
    while Instant::now() < deadline {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        ensure!(answer == message, "another message came back");
        made += 1;
    }
    Ok(made)
}

/// What connections with many messages did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echoed {
    /// As they came back to the clients, and exactly as many as the backend sent back.
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
}

/// Keeps `threads` times `connections` connections busy for `length`: each sends a message when the last one is
/// back. The making of the connections is in it.
///
/// # Errors
/// A connection breaks, another message comes back, or the two ends count differently: the run is void.
pub(crate) fn echo(
    client: (&Namespace, &[usize]),
    backend: &TcpBackend,
    address: SocketAddr,
    (threads, connections): (usize, usize),
    length: Duration,
) -> Result<Echoed> {
    let (echoed, finished) = (backend.echoed(), backend.finished());
    let began = Instant::now();
    let messages: u64 = client.0.run(|| {
        pin(client.1)?;
        let deadline = began + length;
        let threads: Vec<_> =
            (0..threads).map(|_| thread::spawn(move || converse(address, connections, deadline))).collect();
        threads.into_iter().map(join).sum::<Result<u64>>()
    })??;
    let seconds = began.elapsed().as_secs_f64();
    backend.wait_for(finished + (threads * connections) as u64)?;
    let echoed = backend.echoed() - echoed;
    ensure!(echoed == messages, "{messages} messages came back and {echoed} were sent back");
    Ok(Echoed { messages, seconds })
}

/// A message on every connection, then all answers, and so on. All are under way at once, and a thread that waits
/// is woken once for many.
fn converse(address: SocketAddr, connections: usize, deadline: Instant) -> Result<u64> {
    let connect = |_| -> Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let mut streams: Vec<TcpStream> = (0..connections).map(connect).collect::<Result<_>>()?;
    let message = [ECHO_ALL; MESSAGE_LEN];
    let mut answer = [0; MESSAGE_LEN];
    let mut messages = 0;
    while Instant::now() < deadline {
        for stream in &mut streams {
            stream.write_all(&message)?;
        }
        for stream in &mut streams {
            stream.read_exact(&mut answer)?;
            ensure!(answer == message, "another message came back");
            messages += 1;
        }
    }
    Ok(messages)
}

fn join(thread: JoinHandle<Result<u64>>) -> Result<u64> {
    thread.join().map_err(|_| anyhow!("a client thread panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends against each other, without a subject or namespaces.
    fn backend() -> (TcpBackend, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counters: Arc<Counters> = Arc::default();
        let threads = (0..4)
            .map(|_| {
                let (listener, counters) = (listener.try_clone().unwrap(), Arc::clone(&counters));
                thread::spawn(move || accept(&listener, &counters))
            })
            .collect();
        (TcpBackend { listener, counters, threads }, address)
    }

    #[test]
    fn a_download_counts_alike_at_both_ends() {
        let (backend, address) = backend();
        let client = thread::spawn(move || download(address));
        thread::sleep(Duration::from_millis(20));
        backend.counters.stop.store(true, Ordering::SeqCst);
        let received = join(client).unwrap();
        backend.wait_for(1).unwrap();
        assert!(received > 0);
        assert_eq!(received, backend.counters.sent.load(Ordering::SeqCst));
    }

    #[test]
    fn exchanges_count_alike_at_both_ends() {
        let (backend, address) = backend();
        let made = exchanges(address, Instant::now() + Duration::from_millis(30)).unwrap();
        assert!(made > 0);
        backend.wait_for(made).unwrap();
    }

    #[test]
    fn messages_count_alike_at_both_ends() {
        let (backend, address) = backend();
        let messages = converse(address, 4, Instant::now() + Duration::from_millis(30)).unwrap();
        backend.wait_for(4).unwrap();
        assert!(messages > 0 && messages.is_multiple_of(4));
        assert_eq!(backend.echoed(), messages);
    }
}
