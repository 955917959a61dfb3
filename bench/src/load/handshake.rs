//! Handshakes of TLS 1.3, full or resumed, by threads of ours: no generator of the field resumes sessions and says how
//! often it did.

use std::{
    io::Read as _,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, client::Resumption};

use super::{
    pin,
    tls::{self, SERVER},
};
use crate::process::Pinned;

/// Clients at the same time.
const THREADS: usize = 16;
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How a handshake begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// From nothing: a key exchange and a signature.
    Full,
    /// From a ticket of the connection before: a key exchange (`psk_dhe_ke`), no signature.
    Resumed,
}

/// Clients of one subject, with the tickets that they have of it.
#[derive(Debug)]
pub(crate) struct Greeters {
    address: SocketAddr,
    session: Session,
    configs: Vec<Arc<ClientConfig>>,
}

impl Greeters {
    /// Clients that have met the subject once.
    ///
    /// # Errors
    /// It does not answer as it should.
    pub(crate) fn acquaint(place: Pinned<'_>, address: SocketAddr, session: Session) -> Result<Self> {
        let config = || {
            let mut config = tls::client(b"http/1.1")?;
            if session == Session::Full {
                config.resumption = Resumption::disabled();
            }
            Ok(Arc::new(config))
        };
        let configs = (0..THREADS).map(|_| config()).collect::<Result<_>>()?;
        let this = Self { address, session, configs };
        this.each(place, |config| greet(address, config).map(drop))?;
        Ok(this)
    }

    /// Makes about `count` connections that end after the handshake, the first ticket and an orderly close, and gives
    /// how many it was, and the seconds.
    ///
    /// # Errors
    /// One fails, or begins otherwise than it was to.
    pub(crate) fn greet(&self, place: Pinned<'_>, count: u64) -> Result<(u64, f64)> {
        let each = count.div_ceil(THREADS as u64);
        let expected = match self.session {
            Session::Full => HandshakeKind::Full,
            Session::Resumed => HandshakeKind::Resumed,
        };
        let began = Instant::now();
        self.each(place, |config| {
            for _ in 0..each {
                let kind = greet(self.address, config)?;
                ensure!(kind == expected, "a handshake was {kind:?} instead of {expected:?}");
            }
            Ok(())
        })?;
        Ok((each * THREADS as u64, began.elapsed().as_secs_f64()))
    }

    fn each(&self, place: Pinned<'_>, work: impl Fn(&Arc<ClientConfig>) -> Result<()> + Sync) -> Result<()> {
        place.namespace.run(|| {
            pin(place.cores)?;
            thread::scope(|scope| {
                let work = &work;
                let threads: Vec<_> =
                    self.configs.iter().map(|config| scope.spawn(move || work(config))).collect();
                let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
                    thread.join().map_err(|_| anyhow!("a client panicked"))?
                };
                threads.into_iter().try_for_each(join)
            })
        })?
    }
}

fn greet(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<HandshakeKind> {
    let mut stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_nodelay(true)?;
    let mut tls = ClientConnection::new(Arc::clone(config), SERVER.try_into()?)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).context("the handshake")?;
    }
    while tls.tls13_tickets_received() == 0 {
        ensure!(tls.read_tls(&mut stream)? > 0, "closed without a ticket");
        tls.process_new_packets()?;
    }
    tls.send_close_notify();
    while tls.wants_write() {
        tls.write_tls(&mut stream)?;
    }
    stream.shutdown(Shutdown::Write)?;
    // Until the subject has closed, too; how it says that is its own affair.
    _ = stream.read_to_end(&mut Vec::new());
    tls.handshake_kind().context("no handshake")
}
