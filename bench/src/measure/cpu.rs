//! CPU time: of the subject's threads, of kernel threads on its cores, and of the whole machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    process::family,
    sample::{Metric, Sample},
};

/// `_SC_CLK_TCK`: Linux shows times in hundredths of a second on every architecture that it runs us on.
const TICK_NS: u64 = 10_000_000;
/// kthreadd, parent of all kernel threads.
const KTHREADD: u32 = 2;

/// Counters at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    at: Instant,
    /// By thread: nanoseconds run, of the subject's processes.
    threads: BTreeMap<u32, u64>,
    /// The same of all kernel threads: one may come to the subject's cores in between.
    kernel: BTreeMap<u32, u64>,
    /// Kernel threads that last ran on one of the subject's cores.
    here: BTreeSet<u32>,
    /// By core: nanoseconds not worked (idle, waiting for I/O, stolen by the hypervisor).
    idle: Vec<u64>,
    cores: Vec<usize>,
}

/// What was spent between two readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    pub(crate) elapsed: Duration,
    /// Threads of the subject's processes, such as io_uring's workers, and softirq work done in their context.
    pub(crate) threads_ns: u64,
    /// Kernel threads on the subject's cores, such as ksoftirqd and kworkers.
    pub(crate) kernel_ns: u64,
    /// The subject's cores, less idle.
    pub(crate) cores_ns: u64,
    /// All cores, less idle: client, backend and everything else included.
    pub(crate) machine_ns: u64,
    /// Number of the subject's cores.
    pub(crate) cores: usize,
}

impl Reading {
    /// Reads them for the process tree below `pid`, which runs on `cores`.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub(crate) fn take(pid: u32, cores: &[usize]) -> Result<Self> {
        let threads = family(pid).into_iter().flat_map(threads_of).collect();
        let kernel_threads = family(KTHREADD);
        let is_here = |pid: &u32| last_core(*pid).is_some_and(|core| cores.contains(&core));
        let here = kernel_threads.iter().copied().filter(is_here).collect();
        let kernel = kernel_threads.into_iter().flat_map(threads_of).collect();
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Ok(Self { at: Instant::now(), threads, kernel, here, idle: idle_ns(&stat), cores: cores.to_vec() })
    }

    /// What was spent since `before`. A thread that ended meanwhile is not in it; subjects keep theirs.
    pub(crate) fn since(&self, before: &Self) -> Cost {
        let elapsed = self.at - before.at;
        let all: Vec<usize> = (0..self.idle.len()).collect();
        let busy = |cores: &[usize]| {
            let idle: u64 =
                cores.iter().filter_map(|&core| Some(self.idle.get(core)? - before.idle.get(core)?)).sum();
            (elapsed.as_nanos() as u64 * cores.len() as u64).saturating_sub(idle)
        };
        let is_here = |(thread, _): &(&u32, &u64)| self.here.contains(*thread);
        let here = self.kernel.iter().filter(is_here).map(|(&thread, &ns)| (thread, ns)).collect();
        Cost {
            elapsed,
            threads_ns: grown(&before.threads, &self.threads),
            kernel_ns: grown(&before.kernel, &here),
            cores_ns: busy(&self.cores),
            machine_ns: busy(&all),
            cores: self.cores.len(),
        }
    }
}

impl Cost {
    /// CPU time of the subject: its threads and the kernel threads on its cores, in nanoseconds.
    pub(crate) fn subject_ns(&self) -> u64 {
        self.threads_ns + self.kernel_ns
    }

    /// The columns of every scenario that counts units of work; times are per unit, in microseconds.
    pub(crate) fn per_unit(&self, metrics: &CostMetrics, units: f64) -> Sample {
        let share = |ns: u64| ns as f64 / 1000.0 / units;
        Sample::new()
            .with(metrics.cpu, share(self.subject_ns()))
            .with(metrics.machine, share(self.machine_ns))
            .with(KERNEL_THREADS, percent(self.kernel_ns, self.subject_ns()))
            .with(CORE_BUSY, self.core_busy_percent())
    }

    /// Value of [`CORE_BUSY`].
    pub(crate) fn core_busy_percent(&self) -> f64 {
        percent(self.cores_ns, self.elapsed.as_nanos() as u64 * self.cores as u64)
    }
}

/// The two costs per unit of work of a scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CostMetrics {
    /// Of the subject.
    pub(crate) cpu: Metric,
    /// Of the whole machine, by its idle counters.
    pub(crate) machine: Metric,
}

impl CostMetrics {
    /// For this unit, given as `us/request`.
    pub(crate) const fn of(unit: &'static str) -> Self {
        Self { cpu: Metric::cost("cpu", unit), machine: Metric::cost("machine_cpu", unit) }
    }
}

/// Share of `cpu` that is kernel threads'.
const KERNEL_THREADS: Metric = Metric::fact("kernel_threads_share", "%");
/// How busy the subject's cores were: below 95 % the load generator was the limit of throughput, not the subject.
pub(crate) const CORE_BUSY: Metric = Metric::fact("core_busy", "%");

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn grown(before: &BTreeMap<u32, u64>, after: &BTreeMap<u32, u64>) -> u64 {
    after.iter().map(|(thread, ns)| ns.saturating_sub(before.get(thread).copied().unwrap_or(0))).sum()
}

/// Threads of a process and the nanoseconds each has run (first number of schedstat).
fn threads_of(pid: u32) -> Vec<(u32, u64)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("schedstat")).ok()?;
            let ns = stat.split_whitespace().next()?.parse().ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, ns))
        })
        .collect()
}

/// Field 39 of proc_pid_stat(5).
fn last_core(pid: u32) -> Option<usize> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(36)?.parse().ok()
}

/// By core: idle, iowait and steal of proc_stat(5).
fn idle_ns(stat: &str) -> Vec<u64> {
    stat.lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .map(|line| {
            let ticks: Vec<u64> =
                line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
            [3, 4, 7].iter().filter_map(|&column| ticks.get(column)).sum::<u64>() * TICK_NS
        })
        .collect()
}

/// Whether anything but us keeps the machine busy: share of all cores, in percent, over a moment.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn background_percent(moment: Duration) -> Result<f64> {
    let before = Reading::take(std::process::id(), &[])?;
    std::thread::sleep(moment);
    let cost = Reading::take(std::process::id(), &[])?.since(&before);
    let cores = before.idle.len() as u64;
    // /proc itself costs a little where many processes are: ours are not counted.
    Ok(percent(cost.machine_ns.saturating_sub(cost.threads_ns), cost.elapsed.as_nanos() as u64 * cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_idle_iowait_and_steal_of_each_core() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 100 10 5 6 1 0 0\ncpu1 1 2 3 200 0 5 6 0 0 0\nintr 5 6\n";
        assert_eq!(idle_ns(stat), [111 * TICK_NS, 200 * TICK_NS]);
    }

    #[test]
    fn work_of_our_own_thread_is_seen() {
        let pid = std::process::id();
        let before = Reading::take(pid, &[0]).unwrap();
        let spun = Instant::now();
        while spun.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let cost = Reading::take(pid, &[0]).unwrap().since(&before);
        // A busy machine may give us less than the wall clock says, but never nothing.
        assert!(cost.threads_ns > 5_000_000, "{cost:?}");
        assert!(cost.elapsed >= Duration::from_millis(60));
    }

    #[test]
    fn a_thread_that_began_meanwhile_counts_and_one_that_ended_does_not() {
        let before = BTreeMap::from([(1, 100), (2, 50)]);
        let after = BTreeMap::from([(1, 150), (3, 7)]);
        assert_eq!(grown(&before, &after), 57);
    }
}
