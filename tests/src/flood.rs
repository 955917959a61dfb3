//! A SYN flood from forged sources.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::SockRef;

use crate::{
    packet::{Packet, SYN},
    process,
    topology::Host,
    wait::PATIENCE,
    xdp::tap::Tap,
};

/// Where forged sources seem to be.
pub const FORGED: [&str; 2] = ["198.18.0.0/15", "2001:db8:bad::/48"];
/// What a Linux client sends: MSS 1460, selective acknowledgements, timestamps, a window scale.
const OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
/// SYNs that a core sends in one go.
const BURST: u32 = 200;
/// And how long it then pauses, so that the machine gets on with everything else.
const PAUSE: Duration = Duration::from_millis(10);

/// A flood that lasts until dropped, from each of two cores: some 20 000 SYNs a second at most.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    sent: AtomicU64,
}

impl Flood {
    /// From a host's `eth0` to services on another's, in turn.
    ///
    /// # Errors
    /// A packet socket cannot be had.
    pub fn start(from: &Host, to: &Host, services: &[SocketAddr]) -> Result<Self> {
        Self::start_as(from, to, services, forged)
    }

    /// The same, but all of a family come from one address of [`FORGED`].
    ///
    /// # Errors
    /// A packet socket cannot be had.
    pub fn of_one(from: &Host, to: &Host, services: &[SocketAddr]) -> Result<Self> {
        Self::start_as(from, to, services, one)
    }

    fn start_as(
        from: &Host,
        to: &Host,
        services: &[SocketAddr],
        source: fn(IpAddr, u32) -> String,
    ) -> Result<Self> {
        let (own, target) = (mac(from)?, mac(to)?);
        let shared = Arc::new(Shared::default());
        let mut senders = Vec::new();
        for core in 0..2 {
            let tap =
                from.netns.run(|| Tap::new(rustix::net::netdevice::name_to_index(&socket()?, "eth0")?))??;
            let (shared, services) = (shared.clone(), services.to_vec());
            senders.push(thread::spawn(move || {
                let mut cores = CpuSet::new();
                cores.set(core);
                // One that is not there would only make the flood thinner.
                _ = sched_setaffinity(None, &cores);
                let frame = |number: u32| {
                    let service = services[number as usize % services.len()];
                    let source = source(service.ip(), number << 1 | core as u32);
                    let syn = Packet::tcp(&source, &service.to_string(), SYN);
                    syn.macs(target, own).options(&OPTIONS).payload(0).build()
                };
                send(&tap, &shared, frame)
            }));
        }
        Ok(Self { shared, senders })
    }

    /// SYNs sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// A frame could not be sent.
    pub fn stop(mut self) -> Result<u64> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        }
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.senders.drain(..).for_each(|sender| drop(sender.join()));
    }
}

fn send(tap: &Tap, shared: &Shared, frame: impl Fn(u32) -> Vec<u8>) -> Result<()> {
    let mut number = 0u32;
    while !shared.stopping.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            tap.send(&frame(number))?;
            number = number.wrapping_add(1);
        }
        shared.sent.fetch_add(BURST.into(), Ordering::Relaxed);
        while tap.receive().is_some() {}
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// An address of [`FORGED`] and a port, of the family that `like` has.
fn forged(like: IpAddr, number: u32) -> String {
    let mixed = number.wrapping_mul(0x9e37_79b1);
    let port = 1024 + (mixed >> 17);
    match like {
        IpAddr::V4(_) => format!("198.18.{}.{}:{port}", mixed >> 8 & 0xff, mixed & 0xff),
        IpAddr::V6(_) => format!("[2001:db8:bad::{:x}:{:x}]:{port}", mixed >> 16, mixed & 0xffff),
    }
}

/// The one that [`Flood::of_one`] comes from, and a port.
fn one(like: IpAddr, number: u32) -> String {
    let port = 1024 + number % 60_000;
    match like {
        IpAddr::V4(_) => format!("198.18.0.1:{port}"),
        IpAddr::V6(_) => format!("[2001:db8:bad::1]:{port}"),
    }
}

fn socket() -> Result<rustix::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketType, socket};
    Ok(socket(AddressFamily::INET, SocketType::DGRAM, None)?)
}

/// Ethernet address of a host's `eth0`.
fn mac(host: &Host) -> Result<[u8; 6]> {
    let mut command = host.netns.command("ip");
    command.args(["-o", "link", "show", "dev", "eth0"]);
    let line = process::run(command, PATIENCE)?.success()?;
    let (_, rest) = line.split_once("link/ether ").context("no Ethernet address")?;
    let text = rest.split_whitespace().next().unwrap_or_default();
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<std::result::Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("no Ethernet address: {text}"))
}

/// Whether a connection has TCP timestamps: they take twelve bytes of each segment.
///
/// # Errors
/// Its segments are neither as long as the interface takes nor that much shorter.
pub fn has_timestamps(stream: &TcpStream) -> Result<bool> {
    match SockRef::from(stream).tcp_mss()? {
        1460 | 1440 => Ok(false),
        1448 | 1428 => Ok(true),
        other => bail!("segments of {other} bytes"),
    }
}
