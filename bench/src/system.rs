//! What this machine says of itself.

use std::{fs, process::Command, thread};

/// Number of cores of this machine.
pub(crate) fn cores_online() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Ids of all processes.
pub(crate) fn processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// First line that a command prints.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
