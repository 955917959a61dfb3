//! What this host lets us have, and what is lost where it does not.

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, capabilities},
};

use crate::{
    config::{Limits, MemoryLimit, Workers},
    sys::ktls,
    tls::KernelSuites,
};

/// The core of each worker.
///
/// # Errors
/// More workers than cores, or a core that is not ours: two workers on one core would only disturb each other.
pub(super) fn place_workers(workers: &Workers, allowed: &[usize]) -> Result<Vec<usize>, String> {
    let cores = match workers {
        Workers::Auto => allowed.to_vec(),
        Workers::Count(count) if *count <= allowed.len() => allowed[..*count].to_vec(),
        Workers::Count(count) => {
            return Err(format!(
                "runtime.workers = {count}, but this process may run on {} cores only",
                allowed.len()
            ));
        }
        Workers::Cores(cores) => cores.clone(),
    };
    match cores.iter().find(|core| !allowed.contains(core)) {
        Some(core) => Err(format!("runtime.workers: this process may not run on core {core}")),
        None if cores.is_empty() => Err("runtime.workers: no core is left to run on".to_owned()),
        None => Ok(cores),
    }
}

/// Raises the soft limit of open files to the hard one; gives what holds now.
pub(super) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Refused only where the hard limit is above the system's own; the soft one stays then.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors besides those of connections: rings, listeners, maps, the standard three, pooled pipes.
const FILES_OTHER: u64 = 512;

/// How many of `connections` can be had under a limit of `files`: each takes a descriptor on either side.
pub(super) fn connections_possible(files: u64, connections: usize) -> usize {
    let possible = files.saturating_sub(FILES_OTHER) / 2;
    usize::try_from(possible).unwrap_or(usize::MAX).clamp(1, connections)
}

/// Clips `limits.connections` to what open files allow. Where an operator asked for more that is worth a warning;
/// the default is only the most that there can be.
pub(super) fn clip_connections(limits: &mut Limits, files: u64) -> Option<String> {
    let asked = limits.connections;
    limits.connections = connections_possible(files, asked);
    if limits.connections == asked {
        return None;
    }
    let possible = limits.connections;
    if asked == Limits::default().connections {
        tracing::debug!(open_files = files, connections = possible, "connections are limited by open files");
        return None;
    }
    Some(format!(
        "open files are limited to {files}, which is about {possible} connections; limits.connections = {asked} \
         cannot be met and stands at {possible} (raise LimitNOFILE or ulimit -n)"
    ))
}

/// Asks the kernel whether it seals TLS, and says so, once.
pub(super) fn kernel_tls() -> Result<KernelSuites, String> {
    match KernelSuites::probe(ktls::try_keys) {
        Ok(suites) => {
            tracing::info!("kTLS: the kernel seals large bodies, which are spliced");
            Ok(suites)
        }
        Err(error) => {
            tracing::info!(%error, "no kTLS: bodies are sealed as they pass, none is spliced");
            Err(format!("the kernel takes no keys: {error}"))
        }
    }
}

/// Settles `limits.memory = "auto"`: three quarters of what the host has, or what the control groups above us let it have. Sockets
/// and packets are beside it, and the kernel's own.
pub(super) fn settle_memory(limits: &mut Limits) {
    if limits.memory == MemoryLimit::Auto
        && let Some(most) = memory_most()
    {
        limits.memory = MemoryLimit::Bytes(most / 4 * 3);
    }
}

fn memory_most() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let host = memory_total(&read("/proc/meminfo")?)?;
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let above = std::path::Path::new(own).ancestors().filter_map(|group| {
        let file =
            std::path::Path::new("/sys/fs/cgroup").join(group.strip_prefix("/").ok()?).join("memory.max");
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    Some(above.fold(host, u64::min))
}

/// Of `/proc/meminfo`, in bytes.
fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Capabilities that loading and attaching BPF programs wants and this process lacks, by name.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    // Where the kernel does not even tell, the attempt itself will.
    capabilities(None).map_or(Vec::new(), |sets| missing(sets.effective))
}

fn missing(effective: CapabilitySet) -> Vec<&'static str> {
    // CAP_SYS_ADMIN stands in for the two that were split off it (Linux 5.8), not for CAP_NET_ADMIN.
    let wanted = [
        ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        ("CAP_PERFMON", CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ];
    wanted.iter().filter(|(_, any)| !effective.intersects(*any)).map(|(name, _)| *name).collect()
}

/// Where bpf_fib_lookup would find forwarding off, one sentence each: it routes only for interfaces that may forward.
pub(super) fn forwarding_off<'a>(interfaces: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut off = Vec::new();
    for interface in interfaces {
        for family in ["ipv4", "ipv6"] {
            let path = format!("/proc/sys/net/{family}/conf/{interface}/forwarding");
            // Absent where the family is: then there is nothing to forward.
            if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
                off.push(format!(
                    "{interface} does not forward {family}, so its packets find no route to backends of that family \
                     (no-route): sysctl -w net/{family}/conf/{interface}/forwarding=1"
                ));
            }
        }
    }
    off
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_stay_on_allowed_cores() {
        let allowed = [1, 3, 4];
        assert_eq!(place_workers(&Workers::Auto, &allowed), Ok(vec![1, 3, 4]));
        assert_eq!(place_workers(&Workers::Count(2), &allowed), Ok(vec![1, 3]));
        assert_eq!(place_workers(&Workers::Cores(vec![4, 1]), &allowed), Ok(vec![4, 1]));
        assert!(place_workers(&Workers::Count(4), &allowed).unwrap_err().contains("3 cores"));
        assert!(place_workers(&Workers::Cores(vec![2]), &allowed).unwrap_err().contains("core 2"));
        assert!(place_workers(&Workers::Auto, &[]).is_err());
    }

    #[test]
    fn a_shortage_of_files_is_put_in_connections() {
        let clip = |connections, files| {
            let mut limits = Limits { connections, ..Limits::default() };
            let said = clip_connections(&mut limits, files);
            (limits.connections, said)
        };
        assert_eq!(clip(150_000, 400_512), (150_000, None));
        let (possible, said) = clip(150_000, 20_512);
        let said = said.unwrap();
        assert!(possible == 10_000 && said.contains("about 10000 connections"), "{said}");
        assert_eq!(clip(200_000, 20_512), (10_000, None), "nobody asked for the default");
        assert_eq!(clip(5, 100).0, 1, "one is always tried");
    }

    #[test]
    fn memory_is_settled_once() {
        assert_eq!(memory_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        let mut limits = Limits::default();
        settle_memory(&mut limits);
        assert!(
            matches!(limits.memory, MemoryLimit::Bytes(bytes) if bytes > 64 << 20),
            "{:?}",
            limits.memory
        );
        for said in [MemoryLimit::Unlimited, MemoryLimit::Bytes(7)] {
            limits.memory = said;
            settle_memory(&mut limits);
            assert_eq!(limits.memory, said);
        }
    }

    #[test]
    fn capabilities_are_missed_by_name() {
        assert_eq!(missing(CapabilitySet::empty()), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(missing(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert!(missing(CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN).is_empty());
    }
}
