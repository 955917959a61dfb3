//! How busy each worker is, for listeners whose connections may go to another worker than their own.
//!
//! Taken from outside: the scheduler knows how long a thread ran and how long it waited to run, so a worker's loop
//! reads no clock for it, and a core that others eat counts as busy, too.

use std::{fs, path::PathBuf, time::Instant};

use crate::{model::WorkerId, steering::Plane};

/// Threads of workers are named so, followed by the worker's number.
const NAME: &str = "lb-worker-";

/// All workers' threads, as last looked at.
#[derive(Debug, Default)]
pub(super) struct Loads {
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    worker: WorkerId,
    /// Its schedstat.
    path: PathBuf,
    /// Nanoseconds that it had run or waited to run by then.
    last: Option<(u64, Instant)>,
}

impl Loads {
    /// Finds the workers' threads of this process.
    pub(super) fn find() -> Self {
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Self::default() };
        let thread = |task: fs::DirEntry| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let worker = WorkerId(name.trim_end().strip_prefix(NAME)?.parse().ok()?);
            Some(Thread { worker, path: task.path().join("schedstat"), last: None })
        };
        Self { threads: tasks.flatten().filter_map(thread).collect() }
    }

    /// Tells `lb_steer` how busy each worker was since the last look.
    pub(super) fn look(&mut self, plane: &mut Plane, now: Instant) {
        for thread in &mut self.threads {
            // It has ended, or the kernel keeps no such account: then nobody is called busy.
            let Ok(text) = fs::read_to_string(&thread.path) else { continue };
            let Some(busy_ns) = busy_ns(&text) else { continue };
            let load =
                thread.last.map_or(0, |(before, at)| percent(busy_ns.saturating_sub(before), now - at));
            thread.last = Some((busy_ns, now));
            if let Err(error) = plane.set_load(thread.worker, load) {
                tracing::warn!(worker = %thread.worker, %error, "lb_steer does not learn how busy it is");
            }
        }
    }
}

/// First and second of the three numbers: time on a core and time on a run queue, in ns.
/// Source: Documentation/scheduler/sched-stats.rst, Linux 6.12.
fn busy_ns(schedstat: &str) -> Option<u64> {
    let mut numbers = schedstat.split_whitespace().map(|number| number.parse::<u64>().ok());
    Some(numbers.next()??.saturating_add(numbers.next()??))
}

fn percent(busy_ns: u64, of: std::time::Duration) -> u32 {
    let of = of.as_nanos().max(1);
    (u128::from(busy_ns) * 100 / of).min(100) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn running_and_waiting_to_run_are_both_busy() {
        assert_eq!(busy_ns("700 300 12\n"), Some(1000));
        assert_eq!(busy_ns("700\n"), None);
        assert_eq!(busy_ns(""), None);
        let second = Duration::from_secs(1);
        assert_eq!(percent(900_000_000, second), 90);
        assert_eq!(percent(3_000_000_000, second), 100);
        assert_eq!(percent(0, Duration::ZERO), 0);
    }

    #[test]
    fn threads_are_found_by_their_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let named = std::thread::Builder::new().name(format!("{NAME}7"));
        let thread = named.spawn(move || _ = stopped.recv()).unwrap();
        let found = || Loads::find().threads.into_iter().find(|thread| thread.worker == WorkerId(7));
        let start = Instant::now();
        // A thread names itself after it was started.
        while found().is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "it is not found");
        }
        assert!(busy_ns(&fs::read_to_string(found().unwrap().path).unwrap()).is_some());
        drop(stop);
        thread.join().unwrap();
    }
}
