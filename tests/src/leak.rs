//! What a run must not leave behind, and what an earlier one did.

use std::{fs, path::Path};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

use crate::{
    netns::{self, processes_in},
    process::thread_names,
    scene,
};

/// Processes in the namespaces with these inodes, each with its command line.
pub(crate) fn processes(inodes: &[u64]) -> Vec<String> {
    let describe = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("process {pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
    };
    inodes.iter().flat_map(|inode| processes_in(*inode)).map(describe).collect()
}

/// Ends the processes in the namespaces with these inodes.
pub(crate) fn end_processes(inodes: &[u64]) {
    for pid in inodes.iter().flat_map(|inode| processes_in(*inode)) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // Gone meanwhile: fine.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Namespaces whose name begins with `prefix`.
pub(crate) fn namespaces(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(netns::DIRECTORY) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .map(|name| format!("namespace {name}"))
        .collect()
}

/// Mounts at or below `directory`. With them the pins are gone: a pin lives in a bpffs only.
pub(crate) fn mounts(directory: &Path) -> Vec<String> {
    mount_points()
        .into_iter()
        .filter(|point| Path::new(point).starts_with(directory))
        .map(|p| format!("mount {p}"))
        .collect()
}

/// Kernel-made io_uring workers of this process: the harness has none of its own to excuse them.
pub(crate) fn ring_workers() -> Vec<String> {
    thread_names(std::process::id())
        .into_iter()
        .filter(|name| name.starts_with("iou-wrk"))
        .map(|name| format!("thread {name}"))
        .collect()
}

fn mount_points() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

/// Removes what a killed run could not: everything named after a process that no longer lives.
pub(crate) fn sweep_dead_runs() {
    let dead = |name: &str| {
        scene::owner_of(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    if let Ok(entries) = fs::read_dir(netns::DIRECTORY) {
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if dead(&name) {
                netns::delete_left_over(&name);
            }
        }
    }
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(dead) {
            remove_tree(&entry.path());
        }
    }
}

/// Unmounts whatever is mounted below `directory`, then removes it.
pub(crate) fn remove_tree(directory: &Path) {
    for point in mount_points().iter().filter(|point| Path::new(point).starts_with(directory)) {
        // Refused while somebody uses it; the leak check then names it.
        let _ = unmount(point.as_str(), UnmountFlags::empty());
    }
    if mounts(directory).is_empty() {
        let _ = fs::remove_dir_all(directory);
    }
}
