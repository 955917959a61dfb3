//! What this machine says of itself.

use std::{fs, path::Path, process::Command, thread};

/// Number of cores of this machine.
pub(crate) fn cores_online() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Ids of all processes.
pub(crate) fn processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process still does anything: one that waits to be collected does not.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// First line that a command prints.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn we_are_alive_until_collected() {
        assert!(is_alive(&std::process::id().to_string()));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().to_string();
        while is_alive(&pid) {
            thread::sleep(Duration::from_millis(5));
        }
        // It is a zombie until we ask.
        assert!(Path::new("/proc").join(&pid).exists());
        child.wait().unwrap();
        assert!(!is_alive(&pid));
    }
}
