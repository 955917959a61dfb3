//! A backend's connection: reads requests, answers them, or does something worse.

use std::{collections::VecDeque, time::Duration};

use super::{
    ledger::Ledger,
    message::{Kind, bytes_of, chunked, parse},
    peer::{Peer, pause},
    raw::Raw,
};
use crate::ring::simulated::{Conn, Got, Net, Put, Rng};

/// An answer that nobody has asked for.
const LEFTOVER: &[u8] = b"HTTP/1.1 200 OK\r\nX-Id: leftover\r\nContent-Length: 1\r\n\r\n!";

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    Answer,
    /// Before it has read the body.
    Early,
    Silence,
    Reset,
    /// Answers up to some byte, then ends (or resets).
    Cut {
        by_reset: bool,
    },
    /// No HTTP, or what nobody asked for.
    Nonsense,
    /// Answers, and says more than it was asked.
    Leftover,
    /// Answers, and says more when nobody listens.
    Babbles,
    /// Answers well, and closes without having said so.
    Closes,
}

/// What happens when all is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Reads,
    Closes,
    Resets,
    Raw,
}

/// See the module.
pub(super) struct Backend {
    conn: Conn,
    rng: Rng,
    /// Of a thousand requests, to how many it does something worse.
    trouble: usize,
    wake: Duration,
    input: Vec<u8>,
    /// Of the request that is read: id, number of the attempt, reaction.
    current: Option<(String, usize, Reaction)>,
    /// It was answered before it had come.
    is_answered: bool,
    out: VecDeque<Vec<u8>>,
    /// It says something when nobody has asked, then.
    babbles_at: Option<Duration>,
    then: Then,
    /// Whose answer is written.
    answering: Option<(String, usize)>,
    raw: Option<Raw>,
    is_done: bool,
}

impl Backend {
    pub(super) fn new(conn: Conn, rng: Rng, trouble: usize, is_relay: bool) -> Self {
        let raw = is_relay.then(|| Raw::backend(conn));
        Self {
            conn,
            rng,
            trouble,
            wake: Duration::ZERO,
            input: Vec::new(),
            current: None,
            is_answered: false,
            babbles_at: None,
            out: VecDeque::new(),
            then: Then::Reads,
            answering: None,
            raw,
            is_done: false,
        }
    }

    fn end(&mut self, net: &mut Net, then: Then) {
        self.is_done = true;
        match then {
            Then::Resets => net.reset(self.conn),
            _ => net.close(self.conn),
        }
    }

    fn read(&mut self, net: &mut Net, ledger: &mut Ledger) {
        let most = if self.rng.one_in(4) { 1 + self.rng.below(3000) } else { 64 << 10 };
        match net.read(self.conn, most) {
            Got::Bytes(bytes) => self.input.extend_from_slice(&bytes),
            Got::Nothing => return,
            end => {
                if let (Some((id, ..)), Got::End) = (&self.current, &end)
                    && !ledger.is_stopping
                {
                    let id = id.clone();
                    ledger.fail(net, || format!("the request {id} broke off as if it were whole"));
                }
                return self.end(net, Then::Closes);
            }
        }
        self.understand(net, ledger);
    }

    fn understand(&mut self, net: &mut Net, ledger: &mut Ledger) {
        if memchr::memmem::find(&self.input, b"SMUGGLED").is_some() {
            return ledger.fail(net, || "a backend got what stood behind a malformed message".to_owned());
        }
        let message = match parse(&self.input, Kind::Request) {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => return ledger.fail(net, || format!("a backend was sent {error}")),
        };
        let id = message.value("x-id").unwrap_or("none").to_owned();
        if id.starts_with("evil") {
            return ledger
                .fail(net, || format!("a malformed message reached a backend: {:?}", message.start));
        }
        let (number, reaction) = match &self.current {
            Some((_, number, reaction)) => (*number, *reaction),
            None => {
                self.babbles_at = None;
                let number = ledger.receive(net, &id, message.method(), self.conn);
                let reaction = self.react(ledger, &id);
                net.note(|| {
                    format!("backend reads {id} for the time {number} on {}: {reaction:?}", self.conn)
                });
                self.current = Some((id.clone(), number, reaction));
                (number, reaction)
            }
        };
        let asked = ledger.asked.get(&id).cloned();
        if reaction == Reaction::Early && message.len.is_none() {
            if std::mem::replace(&mut self.is_answered, true) {
                return;
            }
            self.answer(net, ledger, &id, number, message.method(), reaction);
            // It may go on reading, or not.
            if self.rng.one_in(2) {
                self.then = Then::Closes;
                ledger.closed_idle += 1;
                self.current = None;
                self.input.clear();
            }
            return;
        }
        let Some(len) = message.len else { return };
        if let Some(asked) = asked.filter(|asked| asked.body != message.body) {
            let (is, was) = (message.body.len(), asked.body.len());
            return ledger.fail(net, || format!("the body of {id} came as other {is} bytes, not {was}"));
        }
        self.input.drain(..len);
        self.current = None;
        if std::mem::take(&mut self.is_answered) {
            return;
        }
        if message.has("upgrade", "websocket") && reaction == Reaction::Answer {
            return self.switch(ledger, id, number);
        }
        self.answer(net, ledger, &id, number, message.method(), reaction);
    }

    fn react(&mut self, ledger: &mut Ledger, id: &str) -> Reaction {
        if self.trouble > 0 && self.rng.one_in(8) {
            return Reaction::Babbles;
        }
        if !self.rng.per_mille(self.trouble) {
            return if self.rng.one_in(30) { Reaction::Early } else { Reaction::Answer };
        }
        let by_reset = self.rng.one_in(2);
        let (reaction, excuse) = match self.rng.below(9) {
            0 => (Reaction::Silence, "its backend is silent"),
            1 => (Reaction::Reset, "its backend resets"),
            2 | 3 => (Reaction::Cut { by_reset }, "its backend breaks off"),
            4 => (Reaction::Nonsense, "its backend speaks nonsense"),
            5 | 6 => (Reaction::Leftover, ""),
            _ => (Reaction::Closes, ""),
        };
        if !excuse.is_empty() {
            ledger.excuse(id, excuse);
        }
        reaction
    }

    /// Changes to another protocol.
    fn switch(&mut self, ledger: &mut Ledger, id: String, number: usize) {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nX-Id: {id}\r\nX-Try: {number}\r\nConnection: upgrade\r\n\
             Upgrade: websocket\r\n\r\n"
        );
        self.out.push_back(head.into_bytes());
        if let Some(attempt) = ledger.attempt(&id, number) {
            attempt.status = 101;
            attempt.is_whole = true;
        }
        self.raw = Some(Raw::tunnel(self.conn, &id, std::mem::take(&mut self.input)));
        self.then = Then::Raw;
    }

    fn answer(
        &mut self,
        net: &mut Net,
        ledger: &mut Ledger,
        id: &str,
        number: usize,
        method: &str,
        reaction: Reaction,
    ) {
        self.then = Then::Reads;
        match reaction {
            Reaction::Silence => return,
            Reaction::Reset => return self.end(net, Then::Resets),
            Reaction::Nonsense => return self.talk_nonsense(),
            _ => {}
        }
        let status = self.rng.pick(&[200, 200, 200, 200, 404, 503, 204, 304]);
        let most = self.rng.pick(&[10, 3000, 20_000, 300_000]);
        let most = if reaction == Reaction::Leftover { 2000 } else { most };
        let body = bytes_of(&format!("{id}/{number}"), self.rng.below(most));
        let is_empty = method == "HEAD" || status == 204 || status == 304;
        let mut bytes = Vec::new();
        if self.rng.one_in(8) && reaction != Reaction::Leftover {
            let hints = format!("HTTP/1.1 103 Early Hints\r\nX-Id: {id}\r\n\r\n");
            (0..1 + self.rng.below(3)).for_each(|_| bytes.extend_from_slice(hints.as_bytes()));
        }
        let head = format!("HTTP/1.1 {status} x\r\nX-Id: {id}\r\nX-Try: {number}\r\n");
        let may_end = !is_empty && !matches!(reaction, Reaction::Leftover | Reaction::Early);
        let sent: &[u8] = if is_empty { b"" } else { &body };
        let is_until_close = match self.rng.below(5) {
            0 | 1 if status != 204 => {
                self.push_chunked(&mut bytes, head, sent, is_empty);
                false
            }
            2 if may_end => {
                bytes.extend_from_slice(format!("{head}\r\n").as_bytes());
                bytes.extend_from_slice(sent);
                self.then = Then::Closes;
                true
            }
            _ => {
                self.push_counted(&mut bytes, head, sent, (status != 204).then_some(body.len()));
                false
            }
        };
        if let Some(attempt) = ledger.attempt(id, number) {
            attempt.status = status;
            attempt.body = if is_empty { Vec::new() } else { body };
        }
        self.answering = Some((id.to_owned(), number));
        match reaction {
            Reaction::Cut { by_reset } => {
                let cut = bytes.len() - self.rng.below(bytes.len());
                bytes.truncate(bytes.len() - cut);
                // Where the end of the stream is the end of the body, nobody can tell.
                if is_until_close
                    && !by_reset
                    && let Some(attempt) = ledger.attempt(id, number)
                {
                    attempt.body.truncate(attempt.body.len().saturating_sub(cut));
                    attempt.is_whole = true;
                }
                self.answering = None;
                self.then = if by_reset { Then::Resets } else { Then::Closes };
            }
            Reaction::Leftover => {
                bytes.extend_from_slice(LEFTOVER);
                net.be_prompt(self.conn);
            }
            Reaction::Babbles if self.then == Then::Reads => {
                self.babbles_at = Some(net.now + Duration::from_millis(self.rng.below(50) as u64));
            }
            Reaction::Closes => self.then = Then::Closes,
            _ => {}
        }
        if self.then != Then::Reads {
            ledger.closed_idle += 1;
        }
        let piece = if reaction == Reaction::Leftover { bytes.len() } else { self.piece() };
        self.out.extend(bytes.chunks(piece.max(1)).map(<[u8]>::to_vec));
    }

    fn push_chunked(&mut self, out: &mut Vec<u8>, head: String, body: &[u8], is_empty: bool) {
        out.extend_from_slice(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
        if !is_empty {
            let piece = self.rng.pick(&[100, 5000, 100_000]);
            out.extend_from_slice(&chunked(body, piece));
        }
    }

    /// `length`: what is said of it.
    fn push_counted(&mut self, out: &mut Vec<u8>, mut head: String, body: &[u8], length: Option<usize>) {
        if self.rng.one_in(6) {
            head.push_str("Connection: close\r\n");
            self.then = Then::Closes;
        }
        if let Some(length) = length {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        out.extend_from_slice(format!("{head}\r\n").as_bytes());
        out.extend_from_slice(body);
    }

    fn talk_nonsense(&mut self) {
        let nonsense: [&[u8]; 6] = [
            b"hello\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent Length: 1\r\n\r\na",
            b"HTTP/2 200 OK\r\n\r\n",
        ];
        self.out.push_back(self.rng.pick(&nonsense).to_vec());
        self.then = if self.rng.one_in(2) { Then::Closes } else { Then::Reads };
    }

    fn piece(&mut self) -> usize {
        let most = self.rng.pick(&[300, 5000, 100_000, 1_000_000]);
        most / 2 + self.rng.below(most)
    }

    fn write(&mut self, net: &mut Net, ledger: &mut Ledger) {
        let Some(piece) = self.out.front_mut() else { return };
        match net.write(self.conn, piece) {
            Put::Bytes(len) => {
                piece.drain(..len);
                if piece.is_empty() {
                    self.out.pop_front();
                }
            }
            Put::Full => return,
            Put::Broken => return self.end(net, Then::Closes),
        }
        if self.out.is_empty() {
            if let Some((id, number)) = self.answering.take()
                && let Some(attempt) = ledger.attempt(&id, number)
            {
                attempt.is_whole = true;
            }
            match self.then {
                Then::Reads => self.understand(net, ledger),
                Then::Raw => {}
                then => self.end(net, then),
            }
        }
    }
}

impl Peer for Backend {
    fn is_done(&self) -> bool {
        self.is_done || self.raw.as_ref().is_some_and(Raw::is_done)
    }

    fn wake(&self) -> Duration {
        self.wake
    }

    fn timer(&self) -> Option<Duration> {
        self.babbles_at
    }

    fn wants(&self, net: &Net) -> bool {
        if let (Some(raw), true) = (&self.raw, self.out.is_empty()) {
            return raw.wants(net);
        }
        let writes = !self.out.is_empty() && net.is_writable(self.conn);
        writes || (self.out.is_empty() && net.is_readable(self.conn))
    }

    fn act(&mut self, net: &mut Net, ledger: &mut Ledger) {
        if self.babbles_at.is_some_and(|at| at <= net.now) {
            self.babbles_at = None;
            // Only where the worker can have seen it before it asks again.
            let is_idle = self.out.is_empty() && self.input.is_empty() && self.current.is_none();
            if self.raw.is_none() && is_idle && net.is_idle(self.conn) {
                net.note(|| format!("backend babbles on {}", self.conn));
                net.be_prompt(self.conn);
                net.write(self.conn, LEFTOVER);
                ledger.closed_idle += 1;
            }
        } else if let (Some(raw), true) = (&mut self.raw, self.out.is_empty()) {
            raw.act(net, ledger, &mut self.rng);
        } else if self.out.is_empty() {
            self.read(net, ledger);
        } else {
            self.write(net, ledger);
        }
        self.wake = net.now + pause(&mut self.rng);
    }

    fn describe(&self) -> String {
        format!("backend's {} reading {:?}, {} pieces left", self.conn, self.current, self.out.len())
    }
}
