//! The access log's thread: takes records out of the workers' queues and writes them as lines, in batches.
//!
//! ```text
//!  drain --records--> gather for a moment --> drain --none--> sleep until a worker rings
//! ```
//! It may block on a disk or a pipe for as long as it likes; workers then find their queues full, drop, and count.
//! Queues stay with their workers: a change of `[log]` gives the thread something else to write to, and that is all.

mod sink;
mod turn;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;

use self::sink::Sink;
pub(super) use self::turn::Turn;
use crate::{
    config,
    log::{Lines, QUEUE_BYTES, Receiver, Record, queue},
    metrics::LogMetrics,
    sys::event,
    worker::AccessLogSetup,
};

/// From one batch to the next while records come: workers ring for none of them.
const GATHERING: Duration = Duration::from_millis(10);
/// Bytes that are written at once.
const BATCH_BYTES: usize = 64 << 10;
/// Records taken from one queue before the others have their turn.
const RECORDS_PER_TURN: usize = 4096;
/// How long the last lines may take.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How long a change waits for the thread, which may wait for a disk.
const TURN_PATIENCE: Duration = Duration::from_secs(1);

/// What others tell the thread.
struct Shared {
    bell: OwnedFd,
    is_asleep: Arc<AtomicBool>,
    reopen: AtomicBool,
    end: AtomicBool,
    letters: (flume::Sender<Letter>, flume::Receiver<Letter>),
}

enum Letter {
    /// Another worker's queue.
    Queue(Receiver),
    /// Something else to write to; told once that is so, and what there was is closed.
    Turn(Turn, flume::Sender<()>),
}

/// The log's thread, which has something to write to where a log is wanted.
pub(super) struct AccessLog {
    /// What it counts.
    pub(super) metrics: Arc<LogMetrics>,
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
    epoch: Instant,
}

impl AccessLog {
    /// Opens what is written to and starts the thread. With it, what each of the workers is to have.
    ///
    /// # Errors
    /// `log.file` cannot be opened or reached.
    pub(super) fn start(
        wanted: Option<&config::AccessLog>,
        workers: usize,
    ) -> anyhow::Result<(Self, Vec<Option<AccessLogSetup>>)> {
        let metrics = Arc::<LogMetrics>::default();
        let turn = Turn::prepare(None, wanted)?;
        let shared = Arc::new(Shared {
            bell: event::new().context("an eventfd for the access log")?,
            is_asleep: Arc::default(),
            reopen: AtomicBool::default(),
            end: AtomicBool::default(),
            letters: flume::unbounded(),
        });
        let epoch = Instant::now();
        let mut writer = Writer {
            output: None,
            batch: Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 2),
            epoch,
            metrics: metrics.clone(),
            lost: 0,
        };
        turn.into_iter().for_each(|turn| writer.turn(turn));
        let theirs = shared.clone();
        let thread = thread::Builder::new()
            .name("lb-access-log".into())
            .spawn(move || drive(writer, &theirs))
            .context("the access log's thread")?;
        let log = Self { metrics, thread, shared, epoch };
        let setups = (0..workers).map(|_| wanted.map(|_| log.queue()).transpose());
        let setups = setups.collect::<anyhow::Result<_>>()?;
        Ok((log, setups))
    }

    /// A queue for one more worker; it goes when that worker's end of it does.
    ///
    /// # Errors
    /// The host refuses a descriptor.
    pub(super) fn queue(&self) -> anyhow::Result<AccessLogSetup> {
        let (sender, receiver) = queue(QUEUE_BYTES, self.shared.is_asleep.clone());
        let bell = self.shared.bell.try_clone().context("a copy of the access log's eventfd")?;
        self.tell(Letter::Queue(receiver));
        Ok(AccessLogSetup { sender, bell, epoch: self.epoch })
    }

    /// Writes elsewhere or otherwise from now on: what waits is written as before, then that is closed. False: the thread
    /// waits for what it writes to, and does so later.
    pub(super) fn turn(&self, turn: Turn) -> bool {
        let (taken, heard) = flume::bounded(1);
        self.tell(Letter::Turn(turn, taken));
        heard.recv_timeout(TURN_PATIENCE).is_ok()
    }

    /// Opens the file anew, by its name: it has been renamed. What was noted before goes to the old one.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        event::ring(&self.shared.bell);
    }

    /// Writes what the workers, who have ended, have noted.
    pub(super) fn finish(&self) {
        self.shared.end.store(true, Ordering::Release);
        event::ring(&self.shared.bell);
        let deadline = Instant::now() + END_PATIENCE;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                return tracing::warn!("the access log's last lines could not be written in time");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn tell(&self, letter: Letter) {
        // The thread has a receiver of its own.
        _ = self.shared.letters.0.send(letter);
        event::ring(&self.shared.bell);
    }
}

fn drive(mut writer: Writer, shared: &Shared) {
    let mut receivers = Vec::new();
    loop {
        // Whoever says so has ended the workers: a drain that begins now takes their last record.
        let is_end = shared.end.load(Ordering::Acquire);
        let is_reopen = shared.reopen.swap(false, Ordering::Acquire);
        let mut turns = Vec::new();
        for letter in shared.letters.1.try_iter() {
            match letter {
                Letter::Queue(receiver) => receivers.push(receiver),
                Letter::Turn(turn, taken) => turns.push((turn, taken)),
            }
        }
        let mut has_any = writer.drain(&mut receivers);
        while is_end && writer.drain(&mut receivers) {}
        for (turn, taken) in turns {
            writer.turn(turn);
            // Whoever asked may have given up.
            _ = taken.send(());
        }
        if is_reopen {
            writer.reopen();
        }
        if is_end {
            return;
        }
        if has_any {
            event::wait(&shared.bell, Some(GATHERING));
            continue;
        }
        receivers.retain(|receiver| !receiver.is_over());
        shared.is_asleep.store(true, Ordering::Relaxed);
        has_any = !receivers.iter().all(Receiver::is_empty);
        if !has_any {
            event::wait(&shared.bell, None);
        }
        shared.is_asleep.store(false, Ordering::Relaxed);
    }
}

/// Where lines go, and what they look like.
struct Output {
    sink: Sink,
    lines: Lines,
}

struct Writer {
    /// `None`: no log is written.
    output: Option<Output>,
    batch: Vec<u8>,
    epoch: Instant,
    metrics: Arc<LogMetrics>,
    /// Lines lost since writing began to fail.
    lost: u64,
}

impl Writer {
    /// Writes what waits, or a bounded part of it. False: nothing did.
    fn drain(&mut self, receivers: &mut [Receiver]) -> bool {
        // Anew each time: the wall clock may have been set.
        let since_epoch = Instant::now().saturating_duration_since(self.epoch);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch_us = now.as_micros() as i64 - since_epoch.as_micros() as i64;
        let mut has_any = false;
        for receiver in receivers {
            for _ in 0..RECORDS_PER_TURN {
                let (output, batch, metrics) = (&mut self.output, &mut self.batch, &self.metrics);
                let there = receiver.pop(|bytes| match (output, Record::decode(bytes)) {
                    (Some(Output { lines, .. }), Some(record)) => {
                        lines.write(batch, &record, epoch_us.saturating_add_unsigned(record.facts.begun_us));
                    }
                    // Of what began when there was a log, and has ended now.
                    (None, Some(_)) => metrics.failed.add(1),
                    (_, None) => {}
                });
                if !there {
                    break;
                }
                has_any = true;
                if self.batch.len() >= BATCH_BYTES {
                    self.flush();
                }
            }
        }
        self.flush();
        has_any
    }

    fn flush(&mut self) {
        let Some(Output { sink, .. }) = self.output.as_mut().filter(|_| !self.batch.is_empty()) else {
            return;
        };
        let written = sink.write(&self.batch);
        let lines = memchr::memchr_iter(b'\n', &self.batch).count() as u64;
        self.batch.clear();
        self.metrics.lines.add(written.lines);
        self.metrics.failed.add(lines - written.lines);
        match written.error {
            Some(error) => {
                if self.lost == 0 {
                    let file = sink.name();
                    tracing::warn!(%file, %error, "the access log cannot be written; its lines are lost until it can");
                }
                self.lost += lines - written.lines;
            }
            None if self.lost > 0 => {
                tracing::warn!(file = %sink.name(), lost = self.lost, "the access log is written again");
                self.lost = 0;
            }
            None => {}
        }
    }

    /// Nothing waits to be written.
    fn turn(&mut self, turn: Turn) {
        self.output = turn.after(self.output.take());
        self.lost = 0;
    }

    fn reopen(&mut self) {
        let Some(Output { sink, .. }) = &mut self.output else {
            return tracing::info!("SIGUSR1: no access log is written");
        };
        let file = sink.name().to_owned();
        match sink.reopen() {
            Ok(()) => tracing::info!(%file, "the access log was opened anew"),
            Err(error) => {
                tracing::warn!(%file, %error, "the access log cannot be opened anew; the old file is still written");
            }
        }
    }
}

#[cfg(test)]
mod tests;
