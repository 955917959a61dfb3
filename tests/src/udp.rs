//! A UDP echo server, and a client that never stops asking.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{netns::Namespace, topology::Host, wait};

/// How often blocked threads look whether to stop.
const TICK: Duration = Duration::from_millis(50);

/// Answers each datagram with the host's name, a space, and the datagram. Stops when dropped.
#[derive(Debug)]
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpEcho {
    /// Binds each of `addresses` (a VIP by name, so that answers come from it) on the host.
    ///
    /// # Errors
    /// An address is not the host's, or the port is taken.
    pub fn start(host: &Host, addresses: &[IpAddr], port: u16) -> Result<Self> {
        let mut this = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            threads: Vec::with_capacity(addresses.len()),
        };
        for address in addresses {
            let bind = || UdpSocket::bind((*address, port));
            let socket = host.netns.run(bind)?.with_context(|| format!("binding {address}:{port}"))?;
            socket.set_read_timeout(Some(TICK))?;
            let (stop, answered, name) = (Arc::clone(&this.stop), Arc::clone(&this.answered), host.name);
            this.threads.push(thread::spawn(move || answer_all(&socket, name, &stop, &answered)));
        }
        Ok(this)
    }

    /// Datagrams answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer_all(socket: &UdpSocket, name: &str, stop: &AtomicBool, answered: &AtomicU64) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((size, from)) = socket.recv_from(&mut buffer) else { continue };
        let answer = [name.as_bytes(), b" ", &buffer[..size]].concat();
        if socket.send_to(&answer, from).is_ok() {
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A client with one source port that sends a numbered datagram at each interval.
#[derive(Debug)]
pub struct UdpProbe {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<Tally>>>,
}

/// What a [`UdpProbe`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams sent.
    pub sent: u64,
    /// Numbers that were never answered.
    pub lost: Vec<u64>,
    /// Answers by backend name.
    pub by_backend: HashMap<String, u64>,
}

impl UdpProbe {
    /// Starts once the service has answered for the first time: before that, neighbours are still unknown.
    ///
    /// # Errors
    /// It does not answer in time.
    pub fn start(netns: &Namespace, address: IpAddr, port: u16, interval: Duration) -> Result<Self> {
        let target = SocketAddr::new(address, port);
        let socket = netns.run(|| open(target))??;
        wait::until_ok("first UDP answer", wait::PATIENCE, || first_answer(&socket))
            .with_context(|| format!("asking {target}"))?;
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || probe(&socket, interval, &stop, &sent)
        });
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until `count` more have been sent.
    ///
    /// # Errors
    /// The probe has stopped by itself.
    pub fn wait_for_more(&self, count: u64) -> Result<()> {
        let goal = self.sent() + count;
        wait::until("progress of the UDP probe", wait::PATIENCE, || (self.sent() >= goal).then_some(()))
    }

    /// Stops sending, waits for late answers, and counts.
    ///
    /// # Errors
    /// The socket failed, for instance by an ICMP error.
    pub fn finish(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished twice")?;
        let tally = thread.join().map_err(|_| anyhow::anyhow!("the UDP probe panicked"))?;
        tally.context("UDP probe")
    }
}

impl Drop for UdpProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks once on a socket of its own, and gives the name of who answered.
///
/// # Errors
/// No answer within a second.
pub fn ask(netns: &Namespace, address: IpAddr, port: u16, text: &str) -> Result<String> {
    let socket = netns.run(|| open(SocketAddr::new(address, port)))??;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send(text.as_bytes())?;
    let mut buffer = [0; 2048];
    let size = socket.recv(&mut buffer).context("no answer")?;
    let answer = String::from_utf8_lossy(&buffer[..size]).into_owned();
    let (name, rest) = answer.split_once(' ').context("an answer without a name")?;
    ensure!(rest == text, "sent {text:?}, got {rest:?}");
    Ok(name.to_owned())
}

fn open(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

fn first_answer(socket: &UdpSocket) -> Result<()> {
    socket.send(b"hello")?;
    let mut buffer = [0; 64];
    socket.recv(&mut buffer)?;
    Ok(())
}

fn probe(socket: &UdpSocket, interval: Duration, stop: &AtomicBool, sent: &AtomicU64) -> io::Result<Tally> {
    let mut answered: HashMap<u64, String> = HashMap::new();
    let mut number = 0;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        socket.send(number.to_string().as_bytes())?;
        number += 1;
        sent.store(number, Ordering::Relaxed);
        next += interval;
        while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            receive(socket, left, &mut answered)?;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while (answered.len() as u64) < number && Instant::now() < deadline {
        receive(socket, TICK, &mut answered)?;
    }
    let mut tally = Tally {
        sent: number,
        lost: (0..number).filter(|n| !answered.contains_key(n)).collect(),
        ..Tally::default()
    };
    answered.into_values().for_each(|name| *tally.by_backend.entry(name).or_default() += 1);
    Ok(tally)
}

/// Takes one answer, if it comes within `limit`. Late answers to the warm-up are not numbered and drop out.
fn receive(socket: &UdpSocket, limit: Duration, answered: &mut HashMap<u64, String>) -> io::Result<()> {
    // Zero would mean for ever.
    socket.set_read_timeout(Some(limit.max(Duration::from_micros(100))))?;
    let mut buffer = [0; 64];
    let size = match socket.recv(&mut buffer) {
        Ok(size) => size,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let answer = String::from_utf8_lossy(&buffer[..size]);
    if let Some((name, number)) = answer.split_once(' ')
        && let Ok(number) = number.parse()
    {
        answered.insert(number, name.to_owned());
    }
    Ok(())
}
