//! Probes over TLS: a stream around another one, and whose certificates each pool's checks take.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use anyhow::Context as _;
use futures_lite::io::{AsyncRead, AsyncWrite};

use super::secret::open_beneath;
use crate::{
    config::{CheckKind, CheckTrust, Config, HttpCheck},
    tls::{Client, ClientSession, Fault, Protocols, Trust},
};

/// What is read at once.
const CHUNK: usize = 4096;
/// Longest file of authorities: those that a host trusts take a quarter of it.
const CA_BYTES_MAX: u64 = 1 << 20;

/// How checks speak TLS, by the names of their pools.
#[derive(Clone, Debug, Default)]
pub(super) struct Trusts(BTreeMap<Arc<str>, Client>);

impl Trusts {
    /// Reads what the checks of a config name, beneath its directory.
    ///
    /// # Errors
    /// A file cannot be read or holds no certificates, or this host has none; the pool is said.
    pub(super) fn load(config: &Config, directory: &Path) -> anyhow::Result<Self> {
        let mut host = None;
        let mut trusts = BTreeMap::new();
        for (name, pool) in &config.pools {
            let Some(kind) = pool.health.as_ref().map(|health| &health.kind) else { continue };
            let Some(tls) = kind.tls() else { continue };
            let at = || format!("pool.{name}.health");
            let trust = match (&tls.trust, &host) {
                (CheckTrust::Anyone, _) => Trust::Anyone,
                (CheckTrust::Host, Some(known)) => Trust::clone(known),
                (CheckTrust::Host, None) => {
                    let trust = Trust::of_host().map_err(anyhow::Error::msg);
                    let trust = trust.with_context(|| format!("{}.verify", at()))?;
                    host.insert(trust).clone()
                }
                (CheckTrust::File(path), _) => {
                    let trust = of_file(directory, path);
                    trust.with_context(|| format!("{}.ca {}", at(), path.display()))?
                }
            };
            let client = Client::new(trust, protocols(kind)).map_err(anyhow::Error::msg).with_context(at)?;
            trusts.insert(name.clone(), client);
        }
        Ok(Self(trusts))
    }

    /// That of a pool.
    pub(super) fn of(&self, pool: &str) -> Option<Client> {
        self.0.get(pool).cloned()
    }
}

fn protocols(kind: &CheckKind) -> Protocols {
    match kind {
        CheckKind::Http(HttpCheck { .. }) => Protocols::Http1,
        CheckKind::Grpc(_) => Protocols::Http2,
        _ => Protocols::Unsaid,
    }
}

fn of_file(directory: &Path, path: &Path) -> anyhow::Result<Trust> {
    let mut text = Vec::new();
    open_beneath(directory, path)?.take(CA_BYTES_MAX).read_to_end(&mut text)?;
    Trust::of_pem(&text).map_err(anyhow::Error::msg)
}

/// A stream of TLS over another one. Reading goes on with the handshake, and sends what that wants sent.
#[derive(Debug)]
pub(super) struct Secured<S> {
    stream: S,
    session: ClientSession,
    /// Records that are to be sent, from `sent` on.
    records: Vec<u8>,
    sent: usize,
    chunk: Box<[u8; CHUNK]>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secured<S> {
    pub(super) fn new(stream: S, session: ClientSession) -> Self {
        Self { stream, session, records: Vec::new(), sent: 0, chunk: Box::new([0; CHUNK]) }
    }

    /// Comes to the end of the handshake.
    ///
    /// # Errors
    /// The stream's, or a [`Fault`] within [`io::ErrorKind::InvalidData`].
    pub(super) async fn shake_hands(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while self.session.is_handshaking() {
                if ready!(self.poll_receive(cx))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            self.poll_send(cx)
        })
        .await
    }

    /// Sends every record.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.session.records(&mut self.records);
            let Some(left) = self.records.get(self.sent..).filter(|left| !left.is_empty()) else {
                self.records.clear();
                self.sent = 0;
                return Pin::new(&mut self.stream).poll_flush(cx);
            };
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.sent += len,
            }
        }
    }

    /// Some bytes for the session, how many; before that, what it has to send.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let len = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut self.chunk[..]))?;
        if let Err(fault) = self.session.handle(&self.chunk[..len]) {
            // The peer is told why, where that goes out at once.
            _ = self.poll_send(cx)?;
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
        }
        Poll::Ready(Ok(len))
    }
}

/// What of TLS an error of [`Secured`] is, if it is.
pub(super) fn fault(error: &io::Error) -> Option<&Fault> {
    error.get_ref()?.downcast_ref()
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(len) = self.session.hear(buffer) {
                return Poll::Ready(Ok(len));
            }
            // One that ends without saying so ends all the same: the answer says by itself whether it is whole.
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let said = self.session.say(bytes);
        // There is no room before something was sent.
        if said == 0 && !bytes.is_empty() {
            ready!(self.poll_send(cx))?;
            return Poll::Ready(Ok(self.session.say(bytes)));
        }
        // What does not go out now goes with the next flush or read.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(said))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.say_end();
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
