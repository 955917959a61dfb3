//! What the command line says of a run.

use std::path::PathBuf;

/// What the command line says of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The config; `None`: the quickstart.
    pub config: Option<PathBuf>,
    /// Where programs and maps are pinned.
    pub bpf_dir: PathBuf,
    /// Instead of the config's `state.dir`.
    pub state_dir: Option<PathBuf>,
    /// Instead of the directory of the config's `admin.socket`.
    pub run_dir: Option<PathBuf>,
    /// The process at standard input is to be taken over from.
    pub takes_over: bool,
}
