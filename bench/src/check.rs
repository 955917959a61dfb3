//! When a run counts: only where all counters agree.

use anyhow::{Result, ensure};

/// The counters of one run, from both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    /// Requests that the generator was to send.
    pub(crate) asked: u64,
    /// Requests that it sent.
    pub(crate) sent: u64,
    /// Answers with a status of 2xx.
    pub(crate) answered: u64,
    /// Requests that the backend counted.
    pub(crate) seen: u64,
    /// Bytes of one body.
    pub(crate) body_len: u64,
    /// Bytes of bodies that the generator received.
    pub(crate) body_bytes: u64,
    /// Bytes that the backend's interface sent, heads and all, where it has one of its own.
    pub(crate) backend_bytes: Option<u64>,
}

impl Ledger {
    /// Requests asked for = sent = answered 2xx = seen by the backend; the bytes that arrived are those of the
    /// answers, and no fewer left the backend.
    ///
    /// # Errors
    /// They do not agree: the run is void.
    pub(crate) fn balance(&self) -> Result<()> {
        let Self { asked, sent, answered, seen, body_len, body_bytes, backend_bytes } = *self;
        ensure!(
            asked == sent && sent == answered && answered == seen,
            "requests do not agree: {asked} asked for, {sent} sent, {answered} answered 2xx, {seen} seen by the backend"
        );
        ensure!(
            body_bytes == answered * body_len,
            "{body_bytes} body bytes arrived, {answered} answers have {}",
            answered * body_len
        );
        if let Some(left) = backend_bytes {
            ensure!(left >= body_bytes, "{body_bytes} body bytes arrived, but only {left} left the backend");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Ledger = Ledger {
        asked: 10,
        sent: 10,
        answered: 10,
        seen: 10,
        body_len: 200,
        body_bytes: 2000,
        backend_bytes: Some(3000),
    };

    #[test]
    fn counters_that_agree_balance() {
        GOOD.balance().unwrap();
        Ledger { backend_bytes: None, ..GOOD }.balance().unwrap();
    }

    #[test]
    fn any_one_that_differs_makes_the_run_void() {
        for bad in [
            Ledger { asked: 11, ..GOOD },
            Ledger { sent: 11, ..GOOD },
            Ledger { answered: 9, ..GOOD },
            Ledger { seen: 9, ..GOOD },
            Ledger { seen: 11, ..GOOD },
            Ledger { body_bytes: 1999, ..GOOD },
            Ledger { body_bytes: 2001, ..GOOD },
            Ledger { backend_bytes: Some(1999), ..GOOD },
        ] {
            assert!(bad.balance().is_err(), "{bad:?}");
        }
    }
}
