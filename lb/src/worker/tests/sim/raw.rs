//! Either end of a stream without framing: through a relay, or behind a 101.
//!
//! What each sends follows from a name that both know, so each knows what it must get. A relay's client says its name first.

use std::time::Duration;

use super::{ledger::Ledger, message::bytes_of, peer::pause};
use crate::ring::simulated::{Conn, Got, Net, Put, Rng};

const NAME_LEN: usize = 8;

/// What may go wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Sends all, ends its side, reads to the end.
    Good,
    /// Resets after so many bytes sent.
    Resets(usize),
    /// Says nothing more after so many bytes, and does not read either.
    Falls(usize),
}

/// See the module.
pub(super) struct Raw {
    conn: Conn,
    name: String,
    is_client: bool,
    /// What it sends; a backend of a relay does not know before it was told a name.
    out: Vec<u8>,
    expected: Vec<u8>,
    sent: usize,
    got: usize,
    /// Came before it had its turn.
    early: Vec<u8>,
    /// Of a name that has not come whole.
    unnamed: Vec<u8>,
    has_ended: bool,
    is_ended: bool,
    is_done: bool,
    plan: Plan,
    read_at: Duration,
}

fn lengths(name: &str) -> (usize, usize) {
    let mut rng = Rng::new(name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)));
    let mut len = || {
        let most = rng.pick(&[1, 2000, 60_000, 700_000]);
        rng.below(most)
    };
    (len(), len())
}

impl Raw {
    fn new(conn: Conn, is_client: bool) -> Self {
        Self {
            conn,
            name: String::new(),
            is_client,
            out: Vec::new(),
            expected: Vec::new(),
            sent: 0,
            got: 0,
            early: Vec::new(),
            unnamed: Vec::new(),
            has_ended: false,
            is_ended: false,
            is_done: false,
            plan: Plan::Good,
            read_at: Duration::ZERO,
        }
    }

    fn named(&mut self, name: &str) {
        let (up, down) = lengths(name);
        let [up, down] =
            [("up", up), ("down", down)].map(|(way, len)| bytes_of(&format!("{name} {way}"), len));
        let (out, expected) = if self.is_client { (up, down) } else { (down, up) };
        self.name = name.to_owned();
        self.out.extend_from_slice(&out);
        self.expected = expected;
    }

    /// A relay's backend.
    pub(super) fn backend(conn: Conn) -> Self {
        Self::new(conn, false)
    }

    /// A relay's client; `name` has 8 bytes.
    pub(super) fn client(conn: Conn, name: &str, rng: &mut Rng, trouble: usize) -> Self {
        let mut raw = Self::new(conn, true);
        raw.out = name.as_bytes().to_vec();
        raw.named(name);
        raw.draw(rng, trouble);
        raw
    }

    /// A backend's end of a tunnel, with what came before it knew.
    pub(super) fn tunnel(conn: Conn, id: &str, early: Vec<u8>) -> Self {
        let mut raw = Self::new(conn, false);
        raw.named(id);
        raw.early = early;
        raw
    }

    /// A client's end of a tunnel.
    pub(super) fn tunnelled(conn: Conn, id: &str, early: Vec<u8>, rng: &mut Rng, trouble: usize) -> Self {
        let mut raw = Self::new(conn, true);
        raw.named(id);
        raw.early = early;
        raw.draw(rng, trouble);
        raw
    }

    fn draw(&mut self, rng: &mut Rng, trouble: usize) {
        if rng.per_mille(trouble) {
            let at = rng.below(self.out.len());
            self.plan = if rng.one_in(2) { Plan::Resets(at) } else { Plan::Falls(at) };
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    fn is_fallen(&self) -> bool {
        matches!(self.plan, Plan::Falls(at) if self.sent >= at)
    }

    pub(super) fn wants(&self, net: &Net) -> bool {
        if self.is_fallen() {
            return net.is_closed_by_worker(self.conn);
        }
        let knows = self.is_client || !self.name.is_empty();
        let writes = knows && !self.has_ended && net.is_writable(self.conn);
        writes || !self.early.is_empty() || (!self.is_ended && net.is_readable(self.conn))
    }

    pub(super) fn act(&mut self, net: &mut Net, ledger: &mut Ledger, rng: &mut Rng) {
        if self.is_fallen() {
            // As if it had lost its power: it does not see the end either.
            self.is_done = true;
            return net.close(self.conn);
        }
        if let Plan::Resets(at) = self.plan
            && self.sent >= at
        {
            self.is_done = true;
            return net.reset(self.conn);
        }
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            self.take(net, ledger, early);
        }
        if net.now >= self.read_at && !self.is_ended {
            self.read(net, ledger, rng);
        }
        if !self.is_done && (self.is_client || !self.name.is_empty()) {
            self.write(net, rng);
        }
        if self.has_ended && self.is_ended && !self.is_done {
            self.is_done = true;
            net.close(self.conn);
        }
    }

    fn read(&mut self, net: &mut Net, ledger: &mut Ledger, rng: &mut Rng) {
        let most = rng.pick(&[100, 5000, 100_000]);
        match net.read(self.conn, most) {
            Got::Bytes(bytes) => self.take(net, ledger, bytes),
            Got::Nothing => {}
            Got::End => {
                self.is_ended = true;
                let (got, all) = (self.got, self.expected.len());
                if self.name.is_empty() {
                    // Nobody has said anything; it has nothing to say either.
                    self.has_ended = true;
                } else if got < all && !ledger.is_stopping {
                    let name = self.name.clone();
                    ledger.fail(net, || {
                        format!("{name} broke off after {got} of {all} bytes as if it were whole")
                    });
                } else if self.is_client && got == all {
                    ledger.whole += 1;
                }
            }
            Got::Reset => {
                self.is_done = true;
                net.close(self.conn);
            }
        }
        self.read_at = net.now + if rng.one_in(8) { pause(rng) } else { Duration::ZERO };
    }

    fn take(&mut self, net: &mut Net, ledger: &mut Ledger, mut bytes: Vec<u8>) {
        if self.name.is_empty() {
            self.unnamed.extend_from_slice(&bytes);
            if self.unnamed.len() < NAME_LEN {
                return;
            }
            bytes = std::mem::take(&mut self.unnamed);
            let Ok(name) = String::from_utf8(bytes[..NAME_LEN].to_vec()) else {
                return ledger.fail(net, || "a relay's first bytes are others".to_owned());
            };
            self.named(&name);
            bytes.drain(..NAME_LEN);
        }
        let expected = self.expected.get(self.got..self.got + bytes.len());
        if expected != Some(&bytes[..]) {
            let (name, got) = (self.name.clone(), self.got);
            ledger.fail(net, || format!("{name} got other bytes from byte {got} on"));
        }
        self.got += bytes.len();
    }

    fn write(&mut self, net: &mut Net, rng: &mut Rng) {
        if self.has_ended {
            return;
        }
        let most = rng.pick(&[1, 1000, 1_000_000]);
        let end = (self.sent + most).min(self.out.len());
        match net.write(self.conn, &self.out[self.sent..end]) {
            Put::Bytes(len) => self.sent += len,
            Put::Full => {}
            Put::Broken => {
                self.is_done = true;
                net.close(self.conn);
                return;
            }
        }
        if self.sent == self.out.len() {
            self.has_ended = true;
            net.end(self.conn);
        }
    }
}
