//! Clients that keep their connections and never rest; what each request came to.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Result, ensure};

use crate::{
    keepalive::KeptClient,
    netns::Namespace,
    wait::{self, PATIENCE},
};

/// One request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which one it was of all, by when they began.
    pub number: usize,
    /// Its status and body; else how its connection broke.
    pub answer: Result<(u16, String), String>,
}

/// Requests of several clients at once.
#[derive(Debug, Default)]
pub struct Load {
    begun: AtomicUsize,
    stop: AtomicBool,
    outcomes: Mutex<Vec<Outcome>>,
}

impl Load {
    /// Asks for a path by so many clients, as long as `story` goes on.
    ///
    /// # Errors
    /// The story's.
    pub fn during<T>(
        netns: &Namespace,
        address: SocketAddr,
        path: &str,
        clients: usize,
        story: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<(T, Vec<Outcome>)> {
        let this = Self::default();
        let told = thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| this.ask(netns, address, path));
            }
            let told = story(&this);
            this.stop.store(true, Ordering::Relaxed);
            told
        })?;
        Ok((told, this.outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// So many have begun.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits until so many more have begun and ended; how many had begun before.
    ///
    /// # Errors
    /// That takes too long.
    pub fn wait_for(&self, more: usize) -> Result<usize> {
        let before = self.begun();
        wait::until_ok("more requests", PATIENCE, || {
            let ended = self.lock().iter().filter(|outcome| outcome.number >= before).count();
            ensure!(ended >= more, "{ended} of {more}");
            Ok(())
        })?;
        Ok(before)
    }

    fn ask(&self, netns: &Namespace, address: SocketAddr, path: &str) {
        let mut client = None;
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let mut get = || -> Result<(u16, String)> {
                if client.as_ref().is_none_or(KeptClient::is_over) {
                    client = Some(KeptClient::connect(netns, address.ip(), address.port())?);
                }
                let Some(client) = &mut client else { anyhow::bail!("no connection") };
                let (status, body) = client.get(path)?;
                Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
            };
            let answer = get().map_err(|error| format!("{error:#}"));
            if answer.is_err() {
                client = None;
            }
            self.lock().push(Outcome { number, answer });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Outcome>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
