//! Random clients against random backends through a real worker: whatever breaks, nobody gets another's answer.
//!
//! Replay a run with `LB_TEST_SEED`.

use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Fixture, backend, has_kernel_workers, pattern,
    peers::{Message, http, try_read_message},
    wait_until,
};

const LASTS: Duration = Duration::from_secs(3);
const CLIENTS: u64 = 8;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// Mostly small, at times large.
    fn len(&mut self) -> usize {
        let most = [50, 3_000, 20_000, 400_000][self.below(4)];
        self.below(most)
    }

    fn pause(&mut self) {
        thread::sleep(Duration::from_micros(self.below(3_000) as u64));
    }
}

fn seed() -> u64 {
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = std::env::var("LB_TEST_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("LB_TEST_SEED={seed}");
    seed
}

/// What the answer to a request is: its id, what the backend saw of its body, and more bytes of its own.
fn answer(id: &str, body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let own = pattern(id.bytes().map(usize::from).sum::<usize>() * 37 % 30_000);
    [format!("{id} {} {sum} ", body.len()).as_bytes(), &own].concat()
}

fn chunked(out: &mut Vec<u8>, body: &[u8], random: &mut Random) {
    let mut rest = body;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at((1 + random.below(9_000)).min(rest.len()));
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
        rest = left;
    }
    out.extend_from_slice(b"0\r\n\r\n");
}

fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Answers some requests, breaks off others.
fn moody(mut stream: TcpStream, random: &mut Random) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = try_read_message(&mut reader)? {
        let body = answer(request.value("x-id").unwrap_or("none"), &request.body);
        let (mut out, mut last) = (Vec::new(), false);
        if random.one_in(5) {
            out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        }
        match random.below(4) {
            0 => {
                out.extend_from_slice(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                chunked(&mut out, &body, random);
            }
            1 if random.one_in(3) => {
                out.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
                out.extend_from_slice(&body);
                stream.write_all(&out)?;
                return Ok(());
            }
            _ => {
                last = random.one_in(6);
                let close = if last { "Connection: close\r\n" } else { "" };
                let head = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n", body.len());
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(&body);
            }
        }
        if random.one_in(8) {
            random.pause();
        }
        if random.one_in(12) {
            // Breaks off somewhere, with an end or a reset.
            out.truncate(random.below(out.len()));
            stream.write_all(&out)?;
            if random.one_in(2) {
                reset(&stream);
            }
            return Ok(());
        }
        for piece in out.chunks(1 + random.below(60_000)) {
            stream.write_all(piece)?;
        }
        // Closes with or without a word.
        if last || random.one_in(10) {
            return Ok(());
        }
    }
    Ok(())
}

fn request(id: &str, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let body = if random.one_in(2) { pattern(random.len()) } else { Vec::new() };
    let mut out = format!("GET /{id} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").into_bytes();
    if !body.is_empty() {
        let by_length = random.one_in(2);
        let framing = if by_length {
            format!("Content-Length: {}", body.len())
        } else {
            "Transfer-Encoding: chunked".into()
        };
        out = format!("POST /{id} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n{framing}\r\n\r\n").into_bytes();
        if by_length {
            out.extend_from_slice(&body);
        } else {
            chunked(&mut out, &body, random);
        }
    }
    (out, answer(id, &body))
}

/// Whether the response is the one for this request; a refusal of ours is nobody's.
fn check(response: &Message, expected: &[u8], id: &str) -> bool {
    if !response.start.contains(" 200 ") {
        assert!(
            [" 408 ", " 502 ", " 503 "].iter().any(|status| response.start.contains(status)),
            "{}",
            response.start
        );
        return false;
    }
    assert!(
        response.body == expected,
        "{id} got {:?}",
        String::from_utf8_lossy(&response.body[..40.min(response.body.len())])
    );
    true
}

/// One connection of one client; how many right answers it got.
fn converse(address: SocketAddr, name: &str, random: &mut Random) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(super::PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut right = 0;
    for at in 0..1 + random.below(12) {
        let count = if random.one_in(4) { 1 + random.below(5) } else { 1 };
        let ids: Vec<_> = (0..count).map(|of| format!("{name}-{at}-{of}")).collect();
        let asked: Vec<_> = ids.iter().map(|id| request(id, random)).collect();
        let bytes: Vec<u8> = asked.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
        let ending = random.below(30);
        if ending < 2 {
            stream.write_all(&bytes[..random.below(bytes.len())])?;
            random.pause();
            if ending == 0 {
                reset(&stream);
            }
            return Ok(right);
        }
        // Written by another thread, so that large pipelines cannot lock both sides up.
        let mut writer = stream.try_clone()?;
        let most = if random.one_in(6) { 200 } else { 100_000 };
        let cut = 1 + random.below(most);
        let half_close = ending == 2;
        let written = thread::spawn(move || {
            for (at, piece) in bytes.chunks(cut).enumerate() {
                if writer.write_all(piece).is_err() {
                    return;
                }
                if at < 20 && cut < 200 {
                    thread::sleep(Duration::from_micros(200));
                }
            }
            if half_close {
                let _ = writer.shutdown(Shutdown::Write);
            }
        });
        if ending == 3 {
            random.pause();
            reset(&stream);
            return Ok(right);
        }
        for (id, (_, expected)) in ids.iter().zip(&asked) {
            let response = loop {
                match try_read_message(&mut reader)? {
                    None => return Ok(right),
                    Some(interim) if interim.start.contains(" 103 ") => {}
                    Some(response) => break response,
                }
            };
            right += u64::from(check(&response, expected, id));
            if response.has("Connection: close") {
                let _ = reader.read(&mut [0; 1]);
                return Ok(right);
            }
        }
        let _ = written.join();
        if half_close {
            return Ok(right);
        }
    }
    Ok(right)
}

#[test]
fn nobody_gets_anothers_answer() {
    let seed = seed();
    let births = Arc::new(AtomicU64::new(0));
    let addresses: Vec<_> = (0..3)
        .map(|_| {
            let births = births.clone();
            backend(move |stream| {
                let birth = births.fetch_add(1, Ordering::Relaxed);
                let _ = moody(stream, &mut Random::new(seed ^ (birth << 20)));
            })
        })
        .collect();
    let fixture: Fixture = http(&addresses);
    let (address, until) = (fixture.address, Instant::now() + LASTS);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            thread::spawn(move || {
                let mut random = Random::new(seed.wrapping_add(client));
                let (mut right, mut turn) = (0, 0);
                while Instant::now() < until {
                    right += converse(address, &format!("{client}-{turn}"), &mut random).unwrap_or(0);
                    turn += 1;
                }
                right
            })
        })
        .collect();
    let right: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    println!("{right} right answers");
    assert!(right > 200, "only {right} right answers");
    wait_until("all places are free", || fixture.admission.open() == 0);
    let metrics = &fixture.handle.metrics;
    wait_until("no exchange is left", || {
        metrics.backends.iter().all(|backend| backend.in_flight.value() == 0)
    });
    assert!(metrics.backends[1].reuses.value() > 0);
    assert!(!has_kernel_workers());
    fixture.stop();
}
