//! The worker's thread: turns the ring, the timers and the tasks, until it is told to end.

use std::{
    io,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    accept,
    api::{Command, Setup},
    local::Local,
    mailbox::Mailbox,
    plan::Plan,
};
use crate::{
    metrics::WorkerMetrics,
    model::WorkerId,
    ring::{Op, Ring, executor},
    sys::affinity,
};

/// Steps of tasks between two looks at the ring.
const STEPS_PER_TURN: usize = 512;
/// How often kept connections are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A running worker, as control holds it.
#[derive(Debug)]
pub struct Handle {
    /// Who it is.
    pub id: WorkerId,
    /// Its core.
    pub core: usize,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<io::Result<()>>,
}

impl Handle {
    /// Starts the thread; returns once its ring is up and its accepts are queued.
    ///
    /// # Errors
    /// The core is not ours, the host refuses io_uring, or it lacks a feature we need; the text says which.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let (id, core, metrics) = (setup.id, setup.core, setup.metrics.clone());
        let mailbox = Arc::new(Mailbox::new()?);
        let (ready, started) = mpsc::sync_channel(1);
        let theirs = mailbox.clone();
        let thread =
            std::thread::Builder::new().name(format!("lb-worker-{id}")).spawn(move || {
                match prepare(setup, &theirs) {
                    Ok(local) => {
                        let _ = ready.send(Ok(()));
                        run(&local)
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        Ok(())
                    }
                }
            })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { id, core, metrics, mailbox, thread })
    }

    /// Puts a command in the mailbox and wakes the worker. Never blocks.
    pub fn send(&self, command: Command) {
        self.mailbox.send(command);
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread's end.
    ///
    /// # Errors
    /// The ring failed under it.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the worker panicked")))
    }
}

fn prepare(mut setup: Setup, mailbox: &Arc<Mailbox>) -> io::Result<Rc<Local>> {
    affinity::pin(setup.core)
        .map_err(|error| io::Error::new(error.kind(), format!("pinning to core {}: {error}", setup.core)))?;
    let ring = Ring::new()?;
    let local = Rc::new(Local::new(&mut setup, ring, Instant::now()));
    let doorbell = Rc::new(mailbox.doorbell()?);
    executor::spawn(read_mailbox(local.clone(), mailbox.clone(), doorbell));
    for bound in setup.listeners {
        executor::spawn(accept::drive(local.clone(), bound));
    }
    // One round of steps queues the accepts; the turn submits them.
    executor::run(STEPS_PER_TURN);
    local.ring.turn(None)?;
    Ok(local)
}

async fn read_mailbox(local: Rc<Local>, mailbox: Arc<Mailbox>, doorbell: Rc<std::os::fd::OwnedFd>) {
    loop {
        while let Some(command) = mailbox.take() {
            match command {
                Command::Publish(snapshot) => local.set_plan(Plan::new(snapshot, local.id)),
                Command::Drain { deadline } => local.begin_drain(deadline),
                Command::Stop => local.begin_stop(),
            }
        }
        if Op::event(&local.ring, &doorbell).await.is_err() {
            return;
        }
    }
}

fn run(local: &Rc<Local>) -> io::Result<()> {
    let served = serve(local);
    local.drop_keepalive();
    local.timers.clear();
    served.and_then(|()| local.ring.shutdown())
}

fn serve(local: &Local) -> io::Result<()> {
    let mut sweep_at = local.now() + SWEEP_EVERY;
    loop {
        let tasks_left = executor::run(STEPS_PER_TURN);
        local.access_log.iter().for_each(|log| log.flush());
        if local.is_finished() {
            return Ok(());
        }
        let now = local.now();
        let sleep = || local.timers.sleep_max(now).min(SWEEP_EVERY).min(local.patience_left());
        local.ring.turn((!tasks_left).then(sleep))?;
        local.set_now(Instant::now());
        local.timers.advance(local.now());
        count(local);
        if local.now() >= sweep_at {
            sweep_at = local.now() + SWEEP_EVERY;
            local.sweep_keepalive();
        }
        if local.is_overdue() {
            local.timers.fire_all();
        }
    }
}

fn count(local: &Local) {
    let counts = local.ring.take_counts();
    let metrics = &local.metrics;
    metrics.turns.add(1);
    metrics.enters.add(counts.enters);
    metrics.completions.add(counts.completions);
    metrics.completions_stray.add(counts.stray);
}
