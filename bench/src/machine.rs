//! What a report states about the machine it was made on.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use serde::Serialize;

use crate::{
    peers::{Peer, SUBJECTS},
    system::{cores_online, first_line},
    topology::CONGESTION_CONTROL,
};

/// The machine, the programs and the circumstances.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) distribution: String,
    /// Of the checkout, with `-dirty` where it was changed.
    pub(crate) commit: String,
    /// Name and version of every program; `null` where it is not installed.
    pub(crate) versions: Vec<(String, Option<String>)>,
    pub(crate) congestion_control: &'static str,
    /// How XDP runs in the scenarios that use it.
    pub(crate) xdp_mode: &'static str,
    /// What else kept the machine busy at the start: share of all cores, in percent.
    pub(crate) background_percent: f64,
    /// When the run began, in seconds since 1970.
    pub(crate) started_at_s: u64,
    pub(crate) took_s: f64,
}

impl Machine {
    /// Looks, after a run that took `took`.
    pub(crate) fn look(background_percent: f64, took: Duration) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: cores_online(),
            memory_mib: field("/proc/meminfo", "MemTotal").split(' ').next().map_or(0, kib_to_mib),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            distribution: distribution(),
            commit: commit(),
            versions: versions(),
            congestion_control: CONGESTION_CONTROL,
            xdp_mode: "native on veth (l4-forward), BPF_PROG_TEST_RUN (l4-program); none elsewhere",
            background_percent,
            started_at_s: now.saturating_sub(took).as_secs(),
            took_s: took.as_secs_f64(),
        }
    }
}

fn versions() -> Vec<(String, Option<String>)> {
    let mut peers: Vec<Peer> = SUBJECTS.iter().map(|subject| subject.peer).collect();
    peers.dedup();
    let mut versions: Vec<_> =
        peers.into_iter().map(|peer| (peer.name().to_owned(), peer.version())).collect();
    let oha = crate::load::oha_program();
    let tools = ["h2load", "strace", "perf"].map(|name| (name, PathBuf::from(name)));
    for (name, program) in tools.into_iter().chain([("oha", oha)]) {
        versions.push((name.to_owned(), first_line(Command::new(program).arg("--version"))));
    }
    versions
}

fn commit() -> String {
    let git = |arguments: &[&str]| first_line(Command::new("git").args(arguments));
    let id = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some();
    if changed { format!("{id}-dirty") } else { id }
}

fn distribution() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
}

/// Value of the first `name : value` line.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    value.unwrap_or_else(|| "unknown".to_owned())
}

fn kib_to_mib(kib: &str) -> u64 {
    kib.parse::<u64>().unwrap_or(0) / 1024
}
