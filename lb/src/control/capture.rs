//! The thread of a capture: from the ring to whoever asked, until that has enough.

use std::{
    io, thread,
    time::{Duration, Instant, SystemTime},
};

use lb_abi::capture::CaptureCounters;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    admin::capture::{Event, Feed, Packet, Wish},
    steering::{self, Captured},
};

/// Between two looks into the ring, when it was empty: a full ring of 1 MiB in that time is 100 MB/s.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two tallies.
const TALLY: Duration = Duration::from_secs(1);
/// Packets on their way to the client.
const QUEUE: usize = 512;
/// A client that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What this thread needs of a capture.
trait Source: Send {
    fn next_packet(&mut self) -> Option<Captured>;
    fn tally(&self) -> Result<CaptureCounters, String>;
    /// No packet comes after this, but for those that are in the ring.
    fn stop(&mut self) -> Result<(), String>;
}

impl Source for steering::Capture {
    fn next_packet(&mut self) -> Option<Captured> {
        Self::next_packet(self)
    }

    fn tally(&self) -> Result<CaptureCounters, String> {
        self.counters().map_err(|error| error.to_string())
    }

    fn stop(&mut self) -> Result<(), String> {
        Self::stop(self).map_err(|error| error.to_string())
    }
}

/// Starts the thread. It ends with the wish's count or duration, or when the feed is dropped.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(capture: steering::Capture, wish: &Wish) -> io::Result<Feed> {
    let (sender, events) = flume::bounded(QUEUE);
    let feed = Feed { interfaces: capture.interfaces.clone(), vips: capture.vips.clone(), events };
    let until = Until { count: wish.count, at: wish.duration.map(|duration| Instant::now() + duration) };
    let drive = Drive { source: capture, until, sender, boot: boot() };
    thread::Builder::new().name("lb-capture".into()).spawn(move || drive.run())?;
    Ok(feed)
}

/// When the monotonic clock was zero, since 1970.
fn boot() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let up = clock_gettime(ClockId::Monotonic);
    let seconds = Duration::from_secs(u64::try_from(up.tv_sec).unwrap_or(0));
    now.saturating_sub(seconds + Duration::from_nanos(u64::try_from(up.tv_nsec).unwrap_or(0)))
}

struct Until {
    count: Option<u64>,
    at: Option<Instant>,
}

struct Drive<S> {
    source: S,
    until: Until,
    sender: flume::Sender<Event>,
    boot: Duration,
}

/// The client went, or takes nothing.
struct Gone;

impl<S: Source> Drive<S> {
    fn run(mut self) {
        let mut left = self.until.count.unwrap_or(u64::MAX);
        let outcome = self.follow(&mut left);
        if let Err(error) = self.source.stop() {
            tracing::error!(%error, "the capture cannot be taken off the packet path");
        }
        if outcome.is_ok() {
            // Of what the ring still holds, and then the sum.
            _ = self.drain(&mut left).and_then(|()| self.tell());
        }
    }

    /// Until enough was sent.
    fn follow(&mut self, left: &mut u64) -> Result<(), Gone> {
        let mut tally_at = Instant::now() + TALLY;
        while *left > 0 && self.until.at.is_none_or(|at| Instant::now() < at) {
            self.drain(left)?;
            if Instant::now() >= tally_at {
                self.tell()?;
                tally_at = Instant::now() + TALLY;
            }
            if self.sender.is_disconnected() {
                return Err(Gone);
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Sends what is in the ring, and no more than is left or can be in it.
    fn drain(&mut self, left: &mut u64) -> Result<(), Gone> {
        for _ in 0..lb_abi::capture::RING_BYTES as usize / size_of::<lb_abi::capture::CaptureRecord>() {
            if *left == 0 {
                break;
            }
            let Some(Captured { record, frame }) = self.source.next_packet() else { break };
            let at = self.boot + Duration::from_nanos(record.ktime_ns);
            self.send(Event::Packet(Box::new(Packet { at, record, frame })))?;
            *left -= 1;
        }
        Ok(())
    }

    fn tell(&self) -> Result<(), Gone> {
        match self.source.tally() {
            Ok(tally) => self.send(Event::Tally(tally)),
            Err(error) => {
                tracing::warn!(%error, "the capture's counters cannot be read");
                Ok(())
            }
        }
    }

    fn send(&self, event: Event) -> Result<(), Gone> {
        self.sender.send_timeout(event, PATIENCE).map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use lb_abi::capture::CaptureRecord;

    use super::*;

    /// A ring that is never empty, until it is stopped; then it holds three more.
    struct Endless {
        stopped: Arc<AtomicBool>,
        rest: u32,
    }

    impl Source for Endless {
        fn next_packet(&mut self) -> Option<Captured> {
            if self.stopped.load(Ordering::Relaxed) {
                self.rest = self.rest.checked_sub(1)?;
            }
            Some(Captured {
                record: CaptureRecord { ktime_ns: 7, ..CaptureRecord::default() },
                frame: vec![1],
            })
        }

        fn tally(&self) -> Result<CaptureCounters, String> {
            Ok(CaptureCounters { written: 99, ..CaptureCounters::default() })
        }

        fn stop(&mut self) -> Result<(), String> {
            self.stopped.store(true, Ordering::Relaxed);
            Ok(())
        }
    }

    fn run(until: Until, queue: usize) -> (Arc<AtomicBool>, flume::Receiver<Event>, thread::JoinHandle<()>) {
        let (sender, events) = flume::bounded(queue);
        let stopped = Arc::<AtomicBool>::default();
        let source = Endless { stopped: stopped.clone(), rest: 3 };
        let drive = Drive { source, until, sender, boot: Duration::from_secs(5) };
        (stopped, events, thread::spawn(move || drive.run()))
    }

    fn packets(events: &[Event]) -> usize {
        events.iter().filter(|event| matches!(event, Event::Packet(_))).count()
    }

    #[test]
    fn it_ends_with_its_count_and_a_tally() {
        let (stopped, events, thread) = run(Until { count: Some(20), at: None }, 100);
        thread.join().unwrap();
        let events: Vec<Event> = events.iter().collect();
        assert_eq!(packets(&events), 20);
        assert!(matches!(events.last(), Some(Event::Tally(tally)) if tally.written == 99));
        let Event::Packet(first) = &events[0] else { panic!("{:?}", events[0]) };
        assert_eq!(first.at, Duration::from_nanos(5_000_000_007));
        assert!(stopped.load(Ordering::Relaxed));
    }

    #[test]
    fn it_ends_with_its_time_and_what_the_ring_still_holds() {
        let at = Some(Instant::now());
        let (stopped, events, thread) = run(Until { count: None, at }, 100);
        thread.join().unwrap();
        let events: Vec<Event> = events.iter().collect();
        assert_eq!((packets(&events), events.len()), (3, 4));
        assert!(stopped.load(Ordering::Relaxed));
    }

    #[test]
    fn it_ends_when_nobody_listens() {
        let (stopped, events, thread) = run(Until { count: None, at: None }, 1);
        assert!(events.recv_timeout(Duration::from_secs(5)).is_ok());
        drop(events);
        thread.join().unwrap();
        assert!(stopped.load(Ordering::Relaxed));
    }
}
