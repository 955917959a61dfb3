//! This process between the one before and the one after: what it has of the one, and what it owes to the other.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{addresses::Held, signals::Wish, workers::owner};
use crate::{
    admin::{self, Views},
    config::Snapshot,
    sys::lock,
    upgrade::{FlowOffer, Gone, Inheritance, Leaving, Predecessor, Predecessors, Successor, Totals},
    worker::LentFlow,
};

/// How often a process that drains says what it has counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Ways from who changes to who waits for the end.
pub(super) struct Succession {
    pub(super) predecessors: Predecessors,
    wishes: flume::Sender<Wish>,
    ended: flume::Receiver<flume::Sender<()>>,
    has_heir: Arc<AtomicBool>,
}

/// Says that the workers have ended.
pub(super) struct Ending {
    tell: flume::Sender<flume::Sender<()>>,
    has_heir: Arc<AtomicBool>,
}

impl Succession {
    /// `wishes` is read by who waits for the end.
    pub(super) fn new(wishes: flume::Sender<Wish>) -> (Self, Ending) {
        let (sender, ended) = flume::bounded(1);
        let (predecessors, has_heir) = (Predecessors::default(), Arc::<AtomicBool>::default());
        (Self { predecessors, wishes, ended, has_heir: has_heir.clone() }, Ending { tell: sender, has_heir })
    }

    /// Another process is the one from now on: workers that end have nothing left to do.
    pub(super) fn begin_to_leave(&self) {
        self.has_heir.store(true, Ordering::Relaxed);
    }

    /// Leaves to another process, which is told what is counted here until the end.
    ///
    /// # Errors
    /// The host refuses a thread; then nothing is told.
    pub(super) fn leave(&self, successor: Successor, views: Views, patience: Duration) -> io::Result<()> {
        lock::give_away();
        // The reader lives as long as the process.
        _ = self.wishes.send(Wish::HandOver(patience));
        let (ended, wishes) = (self.ended.clone(), self.wishes.clone());
        let until = Instant::now() + patience;
        let tell = move || loop {
            let end = ended.recv_timeout(COUNT_EVERY);
            let is_heard = successor.count(&totals(&views, until)).is_ok();
            if let Ok(heard) = end {
                _ = heard.send(());
                return;
            }
            if !is_heard && successor.has_died() {
                // Nobody takes what is new, until this process is out of the way of who restarts it.
                tracing::error!(
                    pid = successor.pid(),
                    "the process that has taken over is dead; this one ends, too"
                );
                _ = wishes.send(Wish::End);
                return;
            }
        };
        thread::Builder::new().name("lb-leaving".into()).spawn(tell).map(drop)
    }
}

impl Ending {
    /// Whether another process is the one.
    pub(super) fn has_heir(&self) -> bool {
        self.has_heir.load(Ordering::Relaxed)
    }

    /// The last word to another process, where there is one.
    pub(super) fn finish(&self) {
        let (sender, heard) = flume::bounded(1);
        if self.has_heir() && self.tell.try_send(sender).is_ok() {
            // It may have ended itself.
            _ = heard.recv_timeout(LAST_WORD);
        }
    }
}

/// What is counted here by now.
pub(super) fn totals(views: &Views, until: Instant) -> Totals {
    let view = views.now();
    let listeners = || view.snapshot.listeners.iter().map(|listener| listener.id);
    let open = view
        .workers
        .iter()
        .flat_map(|worker| listeners().map(move |id| worker.metrics.listener(id).open.value()));
    Totals {
        connections: open.sum(),
        seconds_left: until.saturating_duration_since(Instant::now()).as_secs(),
        metrics: admin::metrics::render(&view, None),
    }
}

/// Says that everything is armed, and waits to be the one; sees to what the process before counts from then on. Its flows
/// of datagrams, each with its socket.
///
/// # Errors
/// The host refuses a thread.
pub(super) fn take_over(
    predecessor: &Predecessor,
    predecessors: &Predecessors,
) -> io::Result<Vec<(FlowOffer, OwnedFd)>> {
    let pid = predecessor.pid;
    let Some(Gone { totals, flows }) = predecessor.ready() else {
        tracing::warn!(pid, "the process that was to be taken over from has died; this one goes on alone");
        return Ok(Vec::new());
    };
    predecessors.add(&Leaving { pid, seconds: 0 });
    predecessors.count(pid, &totals);
    let (predecessor, predecessors) = (predecessor.clone(), predecessors.clone());
    let listen = move || {
        while let Some(totals) = predecessor.totals() {
            predecessors.count(pid, &totals);
        }
        tracing::info!(pid, "the process that was taken over from has ended");
    };
    thread::Builder::new().name("lb-predecessor".into()).spawn(listen)?;
    Ok(flows)
}

/// Flows of another process, by worker; those of addresses and backends that are no more are left out.
pub(super) fn flows_here(
    flows: Vec<(FlowOffer, OwnedFd)>,
    order: &[(SocketAddr, bool, Vec<String>)],
    held: &[Held],
    snapshot: &Snapshot,
    workers: usize,
) -> Vec<Vec<LentFlow>> {
    let mut here: Vec<Vec<LentFlow>> = (0..workers).map(|_| Vec::new()).collect();
    for (offer, socket) in flows {
        let found = || {
            let (address, is_udp, ranges) = order.get(offer.group)?;
            let is_it = |held: &&Held| {
                (held.wanted.address, held.wanted.is_udp) == (*address, *is_udp)
                    && held.wanted.spelled_ranges() == *ranges
            };
            let held = held.iter().find(is_it)?;
            let listener = snapshot.listeners.iter().find(|known| known.id == held.wanted.listener)?;
            let pool = snapshot.pools.get(listener.pool?.index())?;
            let backend = pool.backends.iter().find(|known| *known.name == *offer.backend)?;
            Some((held.id, backend.id))
        };
        let (client, asked) = (offer.client, offer.asked);
        let place = offer.worker;
        if let (Some((group, backend)), Some(worker)) = (found(), here.get_mut(owner(place, workers))) {
            worker.push(LentFlow { group, place, client, asked, backend, socket });
        }
    }
    here
}

/// Of a start that takes over: the process before, and what comes from it.
pub(super) fn receive(takes_over: bool) -> anyhow::Result<(Option<Predecessor>, Inheritance)> {
    if !takes_over {
        return Ok((None, Inheritance::default()));
    }
    let (predecessor, inheritance) = Predecessor::receive()?;
    Ok((Some(predecessor), inheritance))
}
