//! A client's connection: asks, reads the answers and judges them.

use std::{net::SocketAddr, time::Duration};

use super::{
    ask::{Ask, Asks},
    ledger::Ledger,
    message::{Kind, Message, parse},
    peer::{Peer, pause},
    raw::Raw,
};
use crate::ring::simulated::{Conn, Got, Net, Put, Rng};

/// Of what comes behind an early answer the worker reads so much.
const LINGER_BYTES_MAX: usize = 256 << 10;
/// How long who expects a `100 Continue` waits for it.
const CONTINUE_WAIT: Duration = Duration::from_millis(1500);

/// What it does besides asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quirk {
    None,
    /// Ends its side behind the last request.
    EndsSide,
    /// Says nothing more after so many bytes.
    FallsSilent(usize),
    /// Resets after so many bytes.
    Resets(usize),
    /// Closes after so many bytes.
    Closes(usize),
    /// Reads nothing after so many bytes.
    StopsReading(usize),
    /// Reads little at a time.
    ReadsSlowly,
    /// Resets after it has read so many bytes.
    ResetsReading(usize),
}

/// See the module.
pub(super) struct Client {
    pub(super) name: String,
    address: SocketAddr,
    conn: Option<Conn>,
    rng: Rng,
    trouble: usize,
    is_relay: bool,
    wake: Duration,
    asks: Vec<Ask>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    read: usize,
    answered: usize,
    /// The head of a request that expects `100 Continue` was sent whole.
    waits_since: Option<Duration>,
    may_go_on: bool,
    quirk: Quirk,
    raw: Option<Raw>,
    /// An answer said that it is the last one.
    is_last: bool,
    is_ended: bool,
    is_done: bool,
}

impl Client {
    pub(super) fn new(number: usize, rng: Rng, trouble: usize, is_relay: bool, ledger: &mut Ledger) -> Self {
        let mut rng = rng;
        let name = format!("c{number:07}");
        let Asks { asks, out } = Asks::draw(&name, &mut rng, trouble, ledger);
        let quirk = if rng.per_mille(trouble) {
            // Where a request begins, or anywhere.
            let start = asks[rng.below(asks.len())].start;
            let at = if rng.one_in(2) { start } else { rng.below(out.len()) };
            match rng.below(7) {
                0 => Quirk::FallsSilent(at),
                1 => Quirk::Resets(at),
                2 => Quirk::Closes(at),
                3 => Quirk::StopsReading(rng.below(20_000)),
                4 => Quirk::ReadsSlowly,
                5 => Quirk::ResetsReading(1 + rng.below(20_000)),
                _ if asks.last().is_some_and(|ask| ask.upgrades) => Quirk::None,
                _ => Quirk::EndsSide,
            }
        } else {
            Quirk::None
        };
        let wake = Duration::from_millis(rng.below(6000) as u64);
        let ip = [10, 1, (number / 200) as u8, (number % 200) as u8 + 1];
        Self {
            name,
            address: SocketAddr::from((ip, 1024 + number as u16)),
            conn: None,
            rng,
            trouble,
            is_relay,
            wake,
            asks,
            out,
            sent: 0,
            input: Vec::new(),
            read: 0,
            answered: 0,
            waits_since: None,
            may_go_on: false,
            quirk,
            raw: None,
            is_last: false,
            is_ended: false,
            is_done: false,
        }
    }

    /// Whether it has an excuse for whatever comes of its connection.
    fn is_excused(&self, net: &Net, ledger: &Ledger) -> bool {
        let is_quirky = !matches!(self.quirk, Quirk::None | Quirk::EndsSide | Quirk::ReadsSlowly);
        ledger.is_ending || is_quirky || self.conn.is_some_and(|conn| net.is_broken(conn))
    }

    /// So far it may send now.
    fn may_send(&self, now: Duration) -> usize {
        for (at, ask) in self.asks.iter().enumerate() {
            if at > self.answered && !ask.is_pipelined {
                return ask.start;
            }
            let waits = ask.expects && at == self.answered && !self.may_go_on;
            if waits && self.waits_since.is_none_or(|since| now < since + CONTINUE_WAIT) {
                return ask.head_end;
            }
            if ask.expects && at > self.answered {
                return ask.head_end;
            }
        }
        self.out.len()
    }

    fn limit(&self, now: Duration) -> usize {
        match self.quirk {
            Quirk::FallsSilent(at) => self.may_send(now).min(at),
            _ => self.may_send(now),
        }
    }

    fn reads(&self) -> bool {
        !self.is_ended && !matches!(self.quirk, Quirk::StopsReading(at) if self.read >= at)
    }

    fn finish(&mut self, net: &mut Net, by_reset: bool) {
        self.is_done = true;
        if let Some(conn) = self.conn {
            if by_reset { net.reset(conn) } else { net.close(conn) }
        }
    }

    fn write(&mut self, net: &mut Net, conn: Conn) {
        let limit = self.limit(net.now);
        if self.sent >= limit {
            return;
        }
        let most = self.rng.pick(&[1, 50, 2000, 100_000, 1_000_000]);
        let end = (self.sent + most).min(limit);
        match net.write(conn, &self.out[self.sent..end]) {
            Put::Bytes(len) => self.sent += len,
            // The answer, if there is one, is read all the same.
            Put::Full | Put::Broken => {}
        }
        let current = self.asks.get(self.answered);
        if current.is_some_and(|ask| ask.expects && self.sent >= ask.head_end) && self.waits_since.is_none() {
            self.waits_since = Some(net.now);
        }
        match self.quirk {
            Quirk::Resets(at) if self.sent >= at => self.finish(net, true),
            Quirk::Closes(at) if self.sent >= at => self.finish(net, false),
            Quirk::EndsSide if self.sent == self.out.len() => net.end(conn),
            _ => {}
        }
    }

    fn receive(&mut self, net: &mut Net, ledger: &mut Ledger, conn: Conn) {
        let most = match self.quirk {
            Quirk::ReadsSlowly => 1 + self.rng.below(3000),
            _ => self.rng.pick(&[200, 5000, 200_000]),
        };
        match net.read(conn, most) {
            Got::Bytes(bytes) => {
                self.read += bytes.len();
                self.input.extend_from_slice(&bytes);
                self.understand(net, ledger, conn);
                if matches!(self.quirk, Quirk::ResetsReading(at) if self.read >= at) {
                    self.finish(net, true);
                }
            }
            Got::Nothing => {}
            Got::End => self.over(net, ledger, false),
            Got::Reset => self.over(net, ledger, true),
        }
    }

    fn understand(&mut self, net: &mut Net, ledger: &mut Ledger, conn: Conn) {
        while !self.input.is_empty() && self.raw.is_none() {
            let Some(ask) = self.asks.get(self.answered) else {
                let name = self.name.clone();
                return ledger.fail(net, || format!("{name} got an answer that it had not asked for"));
            };
            let id = ask.id.clone();
            let message = match parse(&self.input, Kind::Response(ask.method == "HEAD")) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(error) => return ledger.fail(net, || format!("{id} was answered by {error}")),
            };
            let Some(len) = message.len else {
                return self.judge(net, ledger, &message, false);
            };
            self.judge(net, ledger, &message, true);
            self.input.drain(..len);
            let status = message.status();
            if status == 101 {
                let input = std::mem::take(&mut self.input);
                self.raw = Some(Raw::tunnelled(conn, &id, input, &mut self.rng, self.trouble));
            } else if status < 200 {
                self.may_go_on |= status == 100;
            } else {
                net.note(|| format!("{id} is answered: {status}"));
                self.next(&message);
            }
        }
    }

    fn next(&mut self, message: &Message) {
        self.is_last |= message.has("connection", "close") || message.start.starts_with("HTTP/1.0");
        self.answered += 1;
        self.waits_since = None;
        self.may_go_on = false;
    }

    /// What has come of an answer must be the right one's.
    fn judge(&mut self, net: &mut Net, ledger: &mut Ledger, message: &Message, is_whole: bool) {
        let ask = &self.asks[self.answered];
        let (id, status) = (ask.id.clone(), message.status());
        if self.is_last {
            ledger.fail(net, || format!("{id} was answered behind the last answer"));
        }
        match message.value("x-id") {
            Some(of) if of != id => {
                let of = of.to_owned();
                return ledger.fail(net, || format!("{id} was given the answer {of:?}"));
            }
            Some(_) if status < 200 && status != 101 => return,
            Some(_) => {}
            None if status == 100 && ask.expects => return,
            None => {
                if is_whole {
                    self.judge_refusal(net, ledger, status);
                }
                return;
            }
        }
        if ask.is_evil {
            return ledger.fail(net, || format!("{id} was answered by a backend: {status}"));
        }
        let number = message.value("x-try").and_then(|word| word.parse().ok()).unwrap_or(usize::MAX);
        let Some(attempt) = ledger.attempt(&id, number) else {
            return ledger
                .fail(net, || format!("{id} got the answer of attempt {number}, which there was not"));
        };
        let is_right = status == attempt.status
            && attempt.body.starts_with(&message.body)
            && (!is_whole || attempt.body.len() == message.body.len());
        if !is_right {
            let (was, all, is) = (attempt.status, attempt.body.len(), message.body.len());
            return ledger.fail(net, || format!("{id} got {status} with {is} bytes, not {was} with {all}"));
        }
        if is_whole {
            ledger.whole += 1;
        }
    }

    /// An answer of the worker's own.
    fn judge_refusal(&mut self, net: &mut Net, ledger: &mut Ledger, status: u16) {
        *ledger.own.entry(status).or_default() += 1;
        let ask = &self.asks[self.answered];
        let id = ask.id.clone();
        // A body goes as it comes, and only once.
        let has_body = matches!(ask.method, "POST" | "PUT");
        let faults = ledger.dials_failed + if has_body { ledger.closed_idle } else { 0 };
        let is_allowed = match status {
            400 | 413 | 414 | 417 | 431 | 501 | 505 => ask.is_evil || ask.is_bad,
            408 => self.is_excused(net, ledger),
            502 | 504 => {
                let broken =
                    ledger.attempts.get(&id).is_some_and(|all| all.iter().any(|a| net.is_broken(a.conn)));
                faults > 0
                    || broken
                    || net.breaks > 0
                    || ledger.is_excused(&id)
                    || self.is_excused(net, ledger)
            }
            503 => faults > 0 || ledger.is_ending,
            _ => false,
        };
        if !is_allowed {
            ledger.fail(net, || format!("{id} was refused for no reason: {status}"));
        }
    }

    /// The worker has ended the connection.
    fn over(&mut self, net: &mut Net, ledger: &mut Ledger, by_reset: bool) {
        self.is_ended = true;
        let id = self.asks.get(self.answered).map(|ask| ask.id.clone());
        if let Some(id) = id.clone()
            && !self.input.is_empty()
            && self.raw.is_none()
        {
            let to_head = self.asks[self.answered].method == "HEAD";
            if let Ok(Some(message)) = parse(&self.input, Kind::Response(to_head))
                && message.until_close
                && !by_reset
                && !ledger.is_stopping
            {
                self.judge(net, ledger, &message, true);
                let number = message.value("x-try").and_then(|word| word.parse().ok()).unwrap_or(usize::MAX);
                if ledger.attempt(&id, number).is_some_and(|attempt| !attempt.is_whole) {
                    ledger.fail(net, || format!("{id} broke off as if it were whole"));
                }
                self.next(&message);
                self.input.clear();
                self.is_last = true;
            }
        }
        let is_cut = self.answered < self.asks.len() && memchr::memmem::find(&self.input, b"X-Try").is_some();
        if is_cut && self.raw.is_none() && !self.is_last && !by_reset && !ledger.is_stopping {
            ledger.fail(net, || format!("{id:?} broke off without a reset"));
        }
        self.judge_end(net, ledger, by_reset);
        self.finish(net, false);
    }

    /// Who has asked and done nothing wrong has an answer.
    fn judge_end(&self, net: &mut Net, ledger: &mut Ledger, by_reset: bool) {
        let Some(ask) = self.asks.get(self.answered) else { return };
        let was_cut = !self.input.is_empty();
        // A reset takes what is on its way: the answer before that of who gave cause, too.
        let later = if by_reset { &self.asks[self.answered..] } else { std::slice::from_ref(ask) };
        let is_broken = |ask: &Ask| {
            ledger.is_excused(&ask.id)
                || ask.is_bad
                || ledger.attempts.get(&ask.id).is_some_and(|all| all.iter().any(|a| net.is_broken(a.conn)))
        };
        let is_excused = self.is_excused(net, ledger)
            || later.iter().any(is_broken)
            || (self.is_last && !was_cut)
            // Nobody reads on for ever what an answer did not wait for.
            || (by_reset && self.out.len() - ask.head_end > LINGER_BYTES_MAX);
        if !is_excused {
            let id = ask.id.clone();
            let how = if by_reset { "reset" } else { "ended" };
            ledger.fail(net, || format!("{id} had no answer when its connection was {how}"));
        }
    }
}

impl Peer for Client {
    fn is_done(&self) -> bool {
        self.is_done || self.raw.as_ref().is_some_and(Raw::is_done)
    }

    fn wake(&self) -> Duration {
        self.wake
    }

    fn timer(&self) -> Option<Duration> {
        self.waits_since.filter(|_| !self.may_go_on).map(|since| since + CONTINUE_WAIT)
    }

    fn wants(&self, net: &Net) -> bool {
        let Some(conn) = self.conn else { return true };
        if let Some(raw) = &self.raw {
            return raw.wants(net);
        }
        let is_finished = self.answered == self.asks.len() && self.sent == self.out.len();
        is_finished
            || (self.reads() && net.is_readable(conn))
            || (self.sent < self.limit(net.now) && net.is_writable(conn))
            // Who does not look learns of the end when it would say something.
            || (!self.reads() && net.is_closed_by_worker(conn))
    }

    fn act(&mut self, net: &mut Net, ledger: &mut Ledger) {
        let conn = match self.conn {
            Some(conn) => conn,
            None => {
                let conn = net.arrive(self.address);
                net.note(|| format!("{} arrives as {conn}, {:?}", self.name, self.quirk));
                self.conn = Some(conn);
                if self.is_relay {
                    self.raw = Some(Raw::client(conn, &self.name, &mut self.rng, self.trouble));
                    return;
                }
                conn
            }
        };
        if let Some(raw) = &mut self.raw {
            raw.act(net, ledger, &mut self.rng);
        } else {
            if !self.reads() && net.is_closed_by_worker(conn) {
                return self.finish(net, false);
            }
            self.write(net, conn);
            if self.reads() && !self.is_done && net.is_readable(conn) {
                self.receive(net, ledger, conn);
            }
            let is_finished = self.answered == self.asks.len() && self.sent == self.out.len();
            if is_finished && !self.is_done && self.raw.is_none() {
                if !self.input.is_empty() {
                    let name = self.name.clone();
                    ledger.fail(net, || format!("{name} has more than its answers"));
                }
                self.finish(net, false);
            }
        }
        self.wake = net.now + pause(&mut self.rng);
    }

    fn describe(&self) -> String {
        format!(
            "client {} on {:?}, {} of {} bytes sent, {} of {} answered, {:?}",
            self.name,
            self.conn,
            self.sent,
            self.out.len(),
            self.answered,
            self.asks.len(),
            self.quirk
        )
    }
}
