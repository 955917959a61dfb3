//! Where lines go. Blocks; says how many lines got there whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::{
        fd::AsFd,
        unix::{fs::OpenOptionsExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::config::LogTarget;

/// The local syslog daemon's socket.
const DEV_LOG: &str = "/dev/log";
/// Facility local0, severity informational. Source: RFC 5424, 6.2.1.
const PRIORITY: u8 = 16 * 8 + 6;

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Written {
    /// Lines that got there whole.
    pub(super) lines: u64,
    /// Why the others did not.
    pub(super) error: Option<io::Error>,
}

/// An open target.
pub(super) struct Sink {
    target: LogTarget,
    name: String,
    open: Open,
    /// A file that there was not before, until it is kept.
    made: Option<PathBuf>,
}

enum Open {
    Stream(Stream),
    Local(Local),
    Udp(UdpSocket),
}

impl Sink {
    /// A file that is made goes with it, unless it is [kept](Self::keep).
    ///
    /// # Errors
    /// The file cannot be made or opened, or the socket is not there.
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        let made = match target {
            LogTarget::File(path) if !path.exists() => Some(path.clone()),
            _ => None,
        };
        Ok(Self { target: target.clone(), name: target.to_string(), open: open(target)?, made })
    }

    /// It is written to from now on.
    pub(super) fn keep(&mut self) {
        self.made = None;
    }

    /// For people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Opens it anew, by its name; on an error all stays as it was.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.open = open(&self.target)?;
        Ok(())
    }

    /// Writes whole lines.
    pub(super) fn write(&mut self, batch: &[u8]) -> Written {
        match &mut self.open {
            Open::Stream(stream) => stream.write(batch),
            Open::Udp(socket) => messages(batch, |message| socket.send(message)),
            Open::Local(local) => messages(batch, |message| local.send(message)),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // Nobody has written there; an empty file that stays does no harm.
            _ = fs::remove_file(made);
        }
    }
}

fn open(target: &LogTarget) -> io::Result<Open> {
    Ok(match target {
        LogTarget::Stdout => {
            Open::Stream(Stream::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
        }
        LogTarget::File(path) => Open::Stream(Stream::new(append_to(path)?)),
        LogTarget::SyslogLocal => Open::Local(Local::open(DEV_LOG.into())?),
        LogTarget::SyslogUdp(address) => {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            Open::Udp(socket)
        }
    })
}

/// The socket of a syslog daemon on this machine.
pub(super) struct Local {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Local {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let socket = Self::connect(&path)?;
        Ok(Self { path, socket })
    }

    fn connect(path: &Path) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket
            .connect(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(socket)
    }

    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<usize> {
        self.socket.send(message).or_else(|_| {
            // The daemon at its other end was started anew.
            self.socket = Self::connect(&self.path)?;
            self.socket.send(message)
        })
    }
}

/// Without blocking, so that a pipe which nobody reads is an error and no endless wait; writes do block.
fn append_to(path: &Path) -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file =
        OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(nonblocking).open(path)?;
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Lines one after the other in a file or pipe.
pub(super) struct Stream {
    file: File,
    /// What was written last ends within a line.
    is_torn: bool,
}

impl Stream {
    pub(super) fn new(file: File) -> Self {
        Self { file, is_torn: false }
    }

    pub(super) fn write(&mut self, batch: &[u8]) -> Written {
        if self.is_torn {
            // What there is of a line that failed must not run into the next.
            if let Err(error) = self.file.write_all(b"\n") {
                return Written { lines: 0, error: Some(error) };
            }
            self.is_torn = false;
        }
        let mut rest = batch;
        let error = loop {
            match self.file.write(rest) {
                Ok(0) => break Some(io::ErrorKind::WriteZero.into()),
                Ok(len) if len < rest.len() => rest = &rest[len..],
                Ok(_) => {
                    rest = &[];
                    break None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        let there = &batch[..batch.len() - rest.len()];
        self.is_torn = !there.is_empty() && !there.ends_with(b"\n");
        Written { lines: memchr::memchr_iter(b'\n', there).count() as u64, error }
    }
}

/// Each line as a message of RFC 5424, 6. The last error, if there was one.
fn messages(batch: &[u8], mut send: impl FnMut(&[u8]) -> io::Result<usize>) -> Written {
    let mut message = header().into_bytes();
    let header = message.len();
    let mut written = Written { lines: 0, error: None };
    for line in batch.split_inclusive(|byte| *byte == b'\n') {
        message.truncate(header);
        message.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        match send(&message) {
            Ok(_) => written.lines += 1,
            Err(error) => written.error = Some(error),
        }
    }
    written
}

fn header() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_str().unwrap_or_default();
    let host = if !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()) { host } else { "-" };
    format!("<{PRIORITY}>1 {:.3} {host} lb {} access - ", Timestamp::now(), std::process::id())
}
