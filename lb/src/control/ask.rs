//! Puts one question to servers, and waits for the answer: by UDP, and by TCP where it is longer. Blocks.
//!
//! An answer counts only from the address that was asked, to the port that asked, with the id and the question that were
//! sent: port and id are drawn anew for each question (RFC 5452, 9).

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::names::{
    Failure,
    wire::{self, Question, Reply},
};

/// Datagrams that are none of ours, of one wait: whoever floods us has it end.
const STRAYS_MAX: u32 = 256;
/// Longest message: by TCP its length has two bytes (RFC 1035, 4.2.2).
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// Asks each server in turn, up to `attempts` times, until one answers or denies.
pub(super) fn ask(
    servers: &[SocketAddr],
    attempts: u32,
    timeout: Duration,
    question: &Question,
) -> Result<Reply, Failure> {
    let mut worst = Failure::Unreachable;
    for _ in 0..attempts {
        for &server in servers {
            match ask_one(server, timeout, question) {
                Ok(Reply::Failed(failure)) => worst = failure,
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    tracing::debug!(%server, name = %question.name, %error, "no answer from a DNS server");
                    worst = match error.kind() {
                        ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::TimedOut,
                        ErrorKind::InvalidData => Failure::Malformed,
                        _ => Failure::Unreachable,
                    };
                }
            }
        }
    }
    Err(worst)
}

fn ask_one(server: SocketAddr, timeout: Duration, question: &Question) -> io::Result<Reply> {
    let mut id = [0; 2];
    getrandom(&mut id, GetRandomFlags::empty())?;
    let id = u16::from_ne_bytes(id);
    let message = wire::ask(id, question).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    match by_udp(server, timeout, &message, id, question)? {
        Reply::Truncated => by_tcp(server, timeout, &message, id, question),
        reply => Ok(reply),
    }
}

fn by_udp(
    server: SocketAddr,
    timeout: Duration,
    message: &[u8],
    id: u16,
    question: &Question,
) -> io::Result<Reply> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // The kernel draws the port, and lets nobody else's datagrams in.
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.send(message)?;
    let deadline = Instant::now() + timeout;
    let mut buffer = [0; 4096];
    for _ in 0..STRAYS_MAX {
        socket.set_read_timeout(Some(left(deadline)?))?;
        let len = socket.recv(&mut buffer)?;
        if let Some(reply) = buffer.get(..len).and_then(|bytes| wire::read(bytes, id, question)) {
            return Ok(reply);
        }
    }
    Err(ErrorKind::TimedOut.into())
}

fn by_tcp(
    server: SocketAddr,
    timeout: Duration,
    message: &[u8],
    id: u16,
    question: &Question,
) -> io::Result<Reply> {
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())?;
    let mut length = [0; 2];
    read_until(&mut stream, &mut length, deadline)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length)).min(MESSAGE_BYTES_MAX)];
    read_until(&mut stream, &mut answer, deadline)?;
    match wire::read(&answer, id, question) {
        None | Some(Reply::Truncated) => Err(ErrorKind::InvalidData.into()),
        Some(reply) => Ok(reply),
    }
}

/// As `read_exact`, but no drip of bytes makes it last.
fn read_until(stream: &mut TcpStream, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !into.is_empty() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(into)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            len => into = into.get_mut(len..).unwrap_or_default(),
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::{model::DomainName, names::wire::Kind};

    const SECOND: Duration = Duration::from_secs(1);

    fn question() -> Question {
        Question { name: DomainName::new("api.internal").unwrap(), kind: Kind::A }
    }

    /// The question as an answer with one address.
    fn answer(question: &[u8], last: u8) -> Vec<u8> {
        // What stands behind the question is EDNS, which an answer need not have.
        let len = 12 + "api.internal".len() + 2 + 4;
        let mut out = question[..len].to_vec();
        (out[2], out[3]) = (0x81, 0x80);
        (out[7], out[11]) = (1, 0);
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, last]);
        out
    }

    fn address(last: u8) -> Result<Reply, Failure> {
        Ok(Reply::Addresses(vec![[10, 0, 0, last].into()], Duration::from_secs(9)))
    }

    /// Answers `count` questions by datagrams that `respond` makes of them.
    fn serve(count: usize, respond: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            for _ in 0..count {
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                for answer in respond(&buffer[..len]) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
            // Open until the process ends: silence, not a refusal.
            std::mem::forget(socket);
        });
        address
    }

    #[test]
    fn what_is_not_the_answer_is_waited_out() {
        let server = serve(1, |question| {
            let mut other = answer(question, 66);
            other[0] ^= 1;
            let mut mistaken = answer(question, 66);
            mistaken[13] ^= 1;
            vec![vec![0; 3], other, mistaken, answer(question, 1)]
        });
        assert_eq!(ask(&[server], 1, 10 * SECOND, &question()), address(1));
    }

    #[test]
    fn a_server_that_fails_or_is_silent_is_passed_over() {
        let silent = serve(0, |_| vec![]);
        let failing = serve(2, |question| {
            let mut failed = answer(question, 1);
            failed[3] |= 2;
            vec![failed]
        });
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let good = serve(1, |question| vec![answer(question, 2)]);
        let wait = SECOND / 5;
        assert_eq!(ask(&[silent, failing, closed, good], 1, wait, &question()), address(2));
        assert_eq!(ask(&[silent], 2, wait, &question()), Err(Failure::TimedOut));
        assert_eq!(ask(&[failing], 1, 10 * SECOND, &question()), Err(Failure::ServerFailed));
        assert_eq!(ask(&[closed], 1, SECOND, &question()), Err(Failure::Unreachable));
    }

    #[test]
    fn ids_and_ports_are_drawn_anew() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asking = thread::spawn(move || ask(&[address], 4, SECOND / 20, &question()));
        let mut buffer = [0; 512];
        let seen: std::collections::BTreeSet<_> = (0..4)
            .map(|_| {
                let (_, from) = socket.recv_from(&mut buffer).unwrap();
                ([buffer[0], buffer[1]], from.port())
            })
            .collect();
        assert_eq!(seen.len(), 4);
        assert!(asking.join().unwrap().is_err());
    }

    #[test]
    fn a_long_answer_is_asked_for_by_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(at).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            let mut cut = buffer[..len].to_vec();
            cut[2] |= 0x82;
            socket.send_to(&cut, from).unwrap();
            let mut stream = listener.accept().unwrap().0;
            let mut asked = vec![0; len + 2];
            stream.read_exact(&mut asked).unwrap();
            let answer = answer(&asked[2..], 7);
            let framed = [&(answer.len() as u16).to_be_bytes(), &answer[..]].concat();
            for byte in framed {
                stream.write_all(&[byte]).unwrap();
            }
        });
        assert_eq!(ask(&[at], 1, 10 * SECOND, &question()), address(7));
    }
}
