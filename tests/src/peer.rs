//! TCP servers on threads of the test, with sockets in a backend's namespace.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{netns::Namespace, pattern, topology::Host};

/// What a server does with each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Says the host's name and a newline, then echoes until the client's end, then ends too.
    Echo,
    /// Sends that many bytes of the pattern and ends; afterwards reads the client's side to its end.
    Source(u64),
    /// Reads the pattern to its end, then answers `ok LENGTH` or `bad REASON`.
    Sink,
    /// Reads and keeps silent; for proving that nothing arrived.
    Silent,
}

/// A running server; stops, and resets its connections, when dropped.
#[derive(Debug)]
pub struct TcpServer {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    listener: TcpListener,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    service: Service,
    stopping: AtomicBool,
    accepted: AtomicU64,
    received: AtomicU64,
    /// Clones of the open connections, so that stopping can end them.
    open: Mutex<Vec<TcpStream>>,
}

impl TcpServer {
    /// Listens on all addresses of both families of the host.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(host: &Host, port: u16, service: Service) -> Result<Self> {
        let listener = host.netns.run(|| listen(port))?.with_context(|| format!("listening on {port}"))?;
        let shared = Arc::new(Shared {
            name: host.name,
            service,
            stopping: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            received: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        });
        let acceptor = thread::spawn({
            let (listener, shared) = (listener.try_clone()?, Arc::clone(&shared));
            move || accept_all(&listener, &shared)
        });
        Ok(Self { shared, acceptor: Some(acceptor), listener })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Bytes received so far, over all connections.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // On Linux this wakes accept(2), which then fails with EINVAL.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A killed server's kernel resets; zero linger does the same.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stopping.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else { continue };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        if let Ok(clone) = stream.try_clone() {
            shared.open.lock().unwrap_or_else(PoisonError::into_inner).push(clone);
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // What goes wrong on a connection is the client's to notice.
            let _ = serve(&stream, &shared);
            let _ = stream.shutdown(Shutdown::Both);
            let same = |open: &TcpStream| open.peer_addr().ok() == stream.peer_addr().ok();
            shared.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|open| !same(open));
        });
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream;
    let mut input = Counted { stream, count: &shared.received };
    match shared.service {
        Service::Echo => {
            output.write_all(format!("{}\n", shared.name).as_bytes())?;
            io::copy(&mut input, &mut output)?;
        }
        Service::Source(length) => {
            pattern::write(&mut output, length)?;
            stream.shutdown(Shutdown::Write)?;
            io::copy(&mut input, &mut io::sink())?;
        }
        Service::Sink => {
            let answer = match pattern::check(&mut input) {
                Ok(length) => format!("ok {length}\n"),
                Err(error) => format!("bad {error}\n"),
            };
            output.write_all(answer.as_bytes())?;
        }
        Service::Silent => {
            io::copy(&mut input, &mut io::sink())?;
        }
    }
    Ok(())
}

/// Counts what it reads.
struct Counted<'a> {
    stream: &'a TcpStream,
    count: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.stream.read(buffer)?;
        self.count.fetch_add(size as u64, Ordering::Relaxed);
        Ok(size)
    }
}

/// Longest silence a client puts up with.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects from a namespace; the stream has timeouts, and a refusal comes within three seconds.
///
/// # Errors
/// The connection is refused or not answered.
pub fn connect(netns: &Namespace, address: IpAddr, port: u16) -> Result<TcpStream> {
    let target = SocketAddr::new(address, port);
    let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(3));
    let stream = netns.run(connect)?.with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection to an echo service, with the name that greeted it.
#[derive(Debug)]
pub struct EchoClient {
    stream: TcpStream,
    /// Which backend it is.
    pub backend: String,
}

impl EchoClient {
    /// Connects and reads the greeting.
    ///
    /// # Errors
    /// No connection, or no greeting.
    pub fn connect(netns: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        let stream = connect(netns, address, port)?;
        let backend = read_line(&stream).context("waiting for the greeting")?;
        Ok(Self { stream, backend })
    }

    /// What it speaks over.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a line and waits for it.
    ///
    /// # Errors
    /// It does not come back, or comes back changed.
    pub fn exchange(&self, text: &str) -> Result<()> {
        (&self.stream).write_all(format!("{text}\n").as_bytes())?;
        let answer = read_line(&self.stream)?;
        anyhow::ensure!(answer == text, "sent {text:?}, got {answer:?}");
        Ok(())
    }

    /// Sends a line and waits for nothing.
    ///
    /// # Errors
    /// The connection is known to be over.
    pub fn send(&self, text: &str) -> Result<()> {
        Ok((&self.stream).write_all(format!("{text}\n").as_bytes())?)
    }
}

/// Reads up to a newline, byte by byte: nothing is taken of what follows.
fn read_line(mut stream: &TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return String::from_utf8(line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        }
        line.push(byte[0]);
    }
}

/// Sends bytes as they are and reads what comes, up to the server's end.
///
/// # Errors
/// No connection, or the server neither answers nor closes within 30 s. A reset after an answer is an end.
pub fn raw_exchange(netns: &Namespace, address: IpAddr, port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = connect(netns, address, port)?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(answer),
        Err(error) => Err(error).context(format!("after {:?}", String::from_utf8_lossy(&answer))),
    }
}
