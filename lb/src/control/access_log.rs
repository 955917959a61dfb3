//! The access log's thread: takes records out of the workers' queues and writes them as lines, in batches.
//!
//! ```text
//!  drain --records--> gather for a moment --> drain --none--> sleep until a worker rings
//! ```
//! It may block on a disk or a pipe for as long as it likes; workers then find their queues full, drop, and count.

mod sink;

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

/// What others tell the thread.
struct Shared {
    bell: OwnedFd,
    is_asleep: Arc<AtomicBool>,
    reopen: AtomicBool,
    end: AtomicBool,
}

/// The running log; or none, where none is wanted.
pub(super) struct AccessLog {
    /// What it counts.
    pub(super) metrics: Arc<LogMetrics>,
    thread: Option<(JoinHandle<()>, Arc<Shared>)>,
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
        let Some(wanted) = wanted else {
            return Ok((Self { metrics, thread: None }, (0..workers).map(|_| None).collect()));
        };
        let sink = Sink::open(&wanted.target).with_context(|| format!("log.file = \"{}\"", wanted.target))?;
        let shared = Arc::new(Shared {
            bell: event::new().context("an eventfd for the access log")?,
            is_asleep: Arc::default(),
            reopen: AtomicBool::default(),
            end: AtomicBool::default(),
        });
        let epoch = Instant::now();
        let (mut setups, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (sender, receiver) = queue(QUEUE_BYTES, shared.is_asleep.clone());
            let bell = shared.bell.try_clone().context("a copy of the access log's eventfd")?;
            setups.push(Some(AccessLogSetup { sender, bell, epoch }));
            receivers.push(receiver);
        }
        let writer = Writer {
            sink,
            lines: Lines::new(wanted.style.clone()),
            batch: Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 2),
            epoch,
            metrics: metrics.clone(),
            lost: 0,
        };
        let theirs = shared.clone();
        let thread = thread::Builder::new()
            .name("lb-access-log".into())
            .spawn(move || drive(writer, receivers, &theirs))
            .context("the access log's thread")?;
        Ok((Self { metrics, thread: Some((thread, shared)) }, setups))
    }

    /// Opens the file anew, by its name: it has been renamed. What was noted before goes to the old one.
    pub(super) fn reopen(&self) {
        match &self.thread {
            Some((_, shared)) => {
                shared.reopen.store(true, Ordering::Release);
                event::ring(&shared.bell);
            }
            None => tracing::info!("SIGUSR1: no access log is written"),
        }
    }

    /// Writes what the workers, who have ended, have noted.
    pub(super) fn finish(self) {
        let Some((thread, shared)) = self.thread else { return };
        shared.end.store(true, Ordering::Release);
        event::ring(&shared.bell);
        let deadline = Instant::now() + END_PATIENCE;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return tracing::warn!("the access log's last lines could not be written in time");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn drive(mut writer: Writer, mut receivers: Vec<Receiver>, shared: &Shared) {
    loop {
        // Whoever says so has ended the workers: a drain that begins now takes their last record.
        let is_end = shared.end.load(Ordering::Acquire);
        let is_reopen = shared.reopen.swap(false, Ordering::Acquire);
        let mut has_any = writer.drain(&mut receivers);
        while is_end && writer.drain(&mut receivers) {}
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
        shared.is_asleep.store(true, Ordering::Relaxed);
        has_any = !receivers.iter().all(Receiver::is_empty);
        if !has_any {
            event::wait(&shared.bell, None);
        }
        shared.is_asleep.store(false, Ordering::Relaxed);
    }
}

struct Writer {
    sink: Sink,
    lines: Lines,
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
                let (lines, batch) = (&mut self.lines, &mut self.batch);
                let there = receiver.pop(|bytes| {
                    if let Some(record) = Record::decode(bytes) {
                        lines.write(batch, &record, epoch_us.saturating_add_unsigned(record.facts.begun_us));
                    }
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
        if self.batch.is_empty() {
            return;
        }
        let written = self.sink.write(&self.batch);
        let lines = memchr::memchr_iter(b'\n', &self.batch).count() as u64;
        self.batch.clear();
        self.metrics.lines.add(written.lines);
        self.metrics.failed.add(lines - written.lines);
        match written.error {
            Some(error) => {
                if self.lost == 0 {
                    let file = self.sink.name();
                    tracing::warn!(%file, %error, "the access log cannot be written; its lines are lost until it can");
                }
                self.lost += lines - written.lines;
            }
            None if self.lost > 0 => {
                tracing::warn!(file = %self.sink.name(), lost = self.lost, "the access log is written again");
                self.lost = 0;
            }
            None => {}
        }
    }

    fn reopen(&mut self) {
        let file = self.sink.name().to_owned();
        match self.sink.reopen() {
            Ok(()) => tracing::info!(%file, "the access log was opened anew"),
            Err(error) => {
                tracing::warn!(%file, %error, "the access log cannot be opened anew; the old file is still written");
            }
        }
    }
}

#[cfg(test)]
mod tests;
