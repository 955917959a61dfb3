//! What was asked and what was answered, and who has an excuse. Judges.

use std::collections::BTreeMap;

use crate::ring::simulated::{Conn, Net};

/// What a client asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: &'static str,
    pub(super) body: Vec<u8>,
}

/// What a backend made of it.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) conn: Conn,
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// All of it was given to the network, and it ends as it should.
    pub(super) is_whole: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) asked: BTreeMap<String, Asked>,
    pub(super) attempts: BTreeMap<String, Vec<Attempt>>,
    /// Exchanges that may fail, and why.
    excuses: BTreeMap<String, &'static str>,
    /// Any exchange may fail that would need a new connection.
    pub(super) dials_failed: u64,
    /// Backends closed connections that may have been kept.
    pub(super) closed_idle: u64,
    /// The worker ends, from then on.
    pub(super) is_ending: bool,
    /// Sockets may be closed without a word.
    pub(super) is_stopping: bool,
    /// Answers of the worker's own, by status.
    pub(super) own: BTreeMap<u16, u64>,
    /// Answers that came whole, and streams that did.
    pub(super) whole: u64,
    /// Attempts that a route allows.
    attempts_max: usize,
    failure: Option<String>,
}

impl Ledger {
    pub(super) fn new(attempts_max: usize) -> Self {
        Self { attempts_max, ..Self::default() }
    }

    /// The first thing that goes wrong is told.
    pub(super) fn fail(&mut self, net: &mut Net, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            let text = format!("at {:.6} s: {}", net.now.as_secs_f64(), what());
            net.note(|| text.clone());
            self.failure = Some(text);
        }
    }

    pub(super) fn failure(&self) -> Option<&String> {
        self.failure.as_ref()
    }

    pub(super) fn excuse(&mut self, id: &str, why: &'static str) {
        self.excuses.entry(id.to_owned()).or_insert(why);
    }

    pub(super) fn is_excused(&self, id: &str) -> bool {
        self.is_ending || self.excuses.contains_key(id)
    }

    /// A backend has read a request's head; the number of this attempt.
    pub(super) fn receive(&mut self, net: &mut Net, id: &str, method: &str, conn: Conn) -> usize {
        let before = self.attempts.get(id).map_or(0, Vec::len);
        match self.asked.get(id).map(|asked| asked.method) {
            None => self.fail(net, || format!("a backend was asked {id:?}, which no client has asked")),
            Some(asked) if asked != method => {
                self.fail(net, || format!("{id} was {asked} and became {method}"))
            }
            Some(_) => {}
        }
        if before > 0 && method == "POST" {
            self.fail(net, || {
                format!("{id} reached backends {} times, and may not be done twice", before + 1)
            });
        }
        // Each attempt may once have met a kept connection that was closed.
        if before >= 2 * self.attempts_max {
            self.fail(net, || format!("{id} reached backends {} times", before + 1));
        }
        let attempt = Attempt { conn, status: 0, body: Vec::new(), is_whole: false };
        self.attempts.entry(id.to_owned()).or_default().push(attempt);
        before
    }

    pub(super) fn attempt(&mut self, id: &str, number: usize) -> Option<&mut Attempt> {
        self.attempts.get_mut(id)?.get_mut(number)
    }
}
