//! What a client asks.

use super::{
    ledger::{Asked, Ledger},
    message::{bytes_of, chunked},
};
use crate::ring::simulated::Rng;

/// One request.
pub(super) struct Ask {
    pub(super) id: String,
    pub(super) method: &'static str,
    /// Where it stands in what is sent.
    pub(super) start: usize,
    pub(super) head_end: usize,
    /// It is sent without waiting for the answers before.
    pub(super) is_pipelined: bool,
    /// Its body waits for a `100 Continue`.
    pub(super) expects: bool,
    /// No byte of it may reach a backend.
    pub(super) is_evil: bool,
    /// Its head is sound, its body is not.
    pub(super) is_bad: bool,
    /// It asks for another protocol.
    pub(super) upgrades: bool,
}

/// All of a connection's.
pub(super) struct Asks {
    pub(super) asks: Vec<Ask>,
    pub(super) out: Vec<u8>,
}

/// Heads that are refused.
const EVIL: [&str; 12] = [
    "GET /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\nContent-Length: +5\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\nX : 1\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\nX: 1\r\n 2\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\nX: 1\n\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\nX: \0\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nX-Id: ID\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-Id: ID\r\n\r\nSMUGGLED",
    "GET  /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\n\r\nSMUGGLED",
    "GET /a HTTP/1.1\r\nHost: a\r\nX-Id: ID\r\nTransfer-Encoding: xchunked\r\n\r\nSMUGGLED",
    "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nX-Id: ID\r\n\r\nSMUGGLED",
];

/// What is wrong with a chunked body, behind a first chunk that is sound.
const BAD: [&str; 5] =
    ["zz\r\nSMUGGLED", "5 \r\nSMUGGLED", "-1\r\nSMUGGLED", "5\nSMUGGLED", "fffffffffffffffffff\r\nSMUGGLED"];

impl Asks {
    pub(super) fn draw(name: &str, rng: &mut Rng, trouble: usize, ledger: &mut Ledger) -> Self {
        let mut all = Self { asks: Vec::new(), out: Vec::new() };
        let count = 1 + rng.below(6);
        let pipelines = rng.one_in(4);
        for at in 0..count {
            let is_last = at + 1 == count;
            let is_pipelined = pipelines && rng.one_in(2);
            if is_last && rng.per_mille(trouble / 2) {
                all.push_evil(name, rng, is_pipelined);
            } else {
                all.push(&format!("{name}-{at}"), rng, is_pipelined, is_last, trouble, ledger);
            }
        }
        all
    }

    fn push_evil(&mut self, name: &str, rng: &mut Rng, is_pipelined: bool) {
        let id = format!("evil-{name}");
        let start = self.out.len();
        self.out.extend_from_slice(rng.pick(&EVIL).replace("ID", &id).as_bytes());
        let head_end = self.out.len();
        self.asks.push(Ask {
            id,
            method: "GET",
            start,
            head_end,
            is_pipelined,
            expects: false,
            is_evil: true,
            is_bad: false,
            upgrades: false,
        });
    }

    fn push(
        &mut self,
        id: &str,
        rng: &mut Rng,
        is_pipelined: bool,
        is_last: bool,
        trouble: usize,
        ledger: &mut Ledger,
    ) {
        let start = self.out.len();
        let method = rng.pick(&["GET", "GET", "GET", "HEAD", "POST", "POST", "PUT"]);
        let has_body = matches!(method, "POST" | "PUT") && !rng.one_in(6);
        let most = rng.pick(&[1, 100, 3000, 60_000, 400_000]);
        let body = if has_body { bytes_of(id, rng.below(most)) } else { Vec::new() };
        let upgrades = is_last && method == "GET" && rng.one_in(4);
        let is_old = is_last && !has_body && !upgrades && rng.one_in(6);
        let version = if is_old { "1.0" } else { "1.1" };
        let mut head = format!("{method} /{id} HTTP/{version}\r\nHost: a.test\r\nX-Id: {id}\r\n");
        if upgrades {
            head.push_str("Connection: Upgrade\r\nUpgrade: websocket\r\n");
        } else if is_last && rng.one_in(5) {
            head.push_str("Connection: close\r\n");
        }
        if rng.one_in(10) {
            head.push_str(&format!("X-Long: {}\r\n", "l".repeat(rng.below(20_000))));
        }
        let expects = has_body && !body.is_empty() && rng.one_in(4);
        if expects {
            head.push_str("Expect: 100-continue\r\n");
        }
        let mut is_bad = false;
        let framed = match rng.below(2) {
            _ if !has_body => Vec::new(),
            0 => {
                head.push_str("Transfer-Encoding: chunked\r\n");
                let piece = rng.pick(&[1000, 50_000]);
                let mut framed = chunked(&body, piece);
                if is_last && rng.per_mille(trouble / 2) {
                    is_bad = true;
                    framed.truncate(framed.len() - b"0\r\n\r\n".len());
                    framed.extend_from_slice(rng.pick(&BAD).as_bytes());
                }
                framed
            }
            _ => {
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                body.clone()
            }
        };
        head.push_str("\r\n");
        self.out.extend_from_slice(head.as_bytes());
        let head_end = self.out.len();
        self.out.extend_from_slice(&framed);
        ledger.asked.insert(id.to_owned(), Asked { method, body });
        self.asks.push(Ask {
            id: id.to_owned(),
            method,
            start,
            head_end,
            is_pipelined,
            expects,
            is_evil: false,
            is_bad,
            upgrades,
        });
    }
}
