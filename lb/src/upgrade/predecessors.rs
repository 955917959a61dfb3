//! Processes that this one took over from, as long as they drain; and what all of them counted, so that no series falls.

use std::{
    collections::HashMap,
    fmt,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::message::{Leaving, Totals};

/// All of them.
#[derive(Clone, Default)]
pub struct Predecessors(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    leaving: Vec<One>,
    counted: Arc<HashMap<String, u64>>,
}

struct One {
    pid: u32,
    since: Instant,
    /// Readable once it has ended.
    process: OwnedFd,
    connections: Option<u64>,
    ends_by: Option<Instant>,
}

/// One that drains.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeavingView {
    /// Which.
    pub pid: u32,
    /// How long it has drained.
    pub seconds: u64,
    /// Connections that it has; `None`: it tells another one.
    pub connections: Option<u64>,
    /// When it ends at the latest; `None`: the same.
    pub seconds_left: Option<u64>,
}

impl Predecessors {
    /// One more, which has drained for so long.
    pub fn add(&self, Leaving { pid, seconds }: &Leaving) {
        let Some(process) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else { return };
        // Gone already.
        let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { return };
        let now = Instant::now();
        let since = now.checked_sub(Duration::from_secs(*seconds)).unwrap_or(now);
        self.lock().leaving.push(One { pid: *pid, since, process, connections: None, ends_by: None });
    }

    /// What the last of them has counted by now, with all that it had from those before.
    pub fn count(&self, pid: u32, totals: &Totals) {
        let counted = Arc::new(counters(&totals.metrics));
        let mut known = self.lock();
        known.counted = counted;
        if let Some(one) = known.leaving.iter_mut().find(|one| one.pid == pid) {
            one.connections = Some(totals.connections);
            one.ends_by = Some(Instant::now() + Duration::from_secs(totals.seconds_left));
        }
    }

    /// Those that still drain.
    pub fn list(&self) -> Vec<LeavingView> {
        let mut known = self.lock();
        known.leaving.retain(|one| !has_ended(&one.process));
        let now = Instant::now();
        let view = |one: &One| LeavingView {
            pid: one.pid,
            seconds: now.saturating_duration_since(one.since).as_secs(),
            connections: one.connections,
            seconds_left: one.ends_by.map(|by| by.saturating_duration_since(now).as_secs()),
        };
        known.leaving.iter().map(view).collect()
    }

    /// Passes a signal on to those that still drain: whoever sends it knows but us.
    pub fn signal(&self, signal: Signal) {
        for one in &self.lock().leaving {
            // One that has ended needs none.
            _ = pidfd_send_signal(&one.process, signal);
        }
    }

    /// What they have counted, by series.
    pub fn counted(&self) -> Arc<HashMap<String, u64>> {
        self.lock().counted.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Predecessors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// The counters of an exposition that are not zero, each by its name and labels as they are written.
fn counters(exposition: &str) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or_default();
        match value.parse() {
            Ok(value @ 1..) if name.ends_with("_total") => _ = found.insert(series.to_owned(), value),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_ended_is_not_listed() {
        let predecessors = Predecessors::default();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        predecessors.add(&Leaving { pid: child.id(), seconds: 5 });
        predecessors.count(child.id(), &Totals { connections: 3, seconds_left: 60, ..Totals::default() });
        let listed = predecessors.list();
        assert_eq!((listed.len(), listed[0].pid, listed[0].connections), (1, child.id(), Some(3)));
        assert!(listed[0].seconds >= 5 && listed[0].seconds_left.is_some_and(|left| left <= 60));
        predecessors.signal(Signal::USR1);
        let ended = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&ended),
            Some(Signal::USR1.as_raw()),
            "it was passed on"
        );
        assert!(predecessors.list().is_empty());
        predecessors.signal(Signal::USR1);
    }

    #[test]
    fn counters_are_read_from_an_exposition() {
        let text = "# HELP lb_a_total A b.\n# TYPE lb_a_total counter\nlb_a_total{x=\"a b\"} 7\nlb_a_total{x=\"}\"} 0\n\
            # TYPE lb_b gauge\nlb_b 3\n";
        assert_eq!(counters(text), HashMap::from([("lb_a_total{x=\"a b\"}".to_owned(), 7)]));
    }
}
