//! What is to run: a config and where it came from.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{demo, paths::Paths};
use crate::config::{self, Config, Digest, Problems, ReadingNotes};

/// Directories that the command line says.
#[derive(Clone, Debug, Default)]
pub(super) struct Overridden {
    pub(super) run_dir: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
}

/// A config, ready to be run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) config: Config,
    /// The file; `None` for the quickstart.
    pub(super) path: Option<PathBuf>,
    /// Its references lie beneath.
    pub(super) directory: PathBuf,
    pub(super) digest: Option<Digest>,
    /// What the config probably should not say, or costs.
    pub(super) warnings: Vec<String>,
    /// To read edits of it.
    pub(super) notes: ReadingNotes,
}

impl Plan {
    /// The config in a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn of_file(path: &Path) -> Result<Self, Problems> {
        let loaded = config::load(path)?;
        // As a generation names it, whatever the directory that a start is in.
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            config: loaded.config,
            directory: whole.parent().map_or(loaded.directory, Path::to_owned),
            path: Some(whole),
            digest: Some(loaded.digest),
            warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
            notes: loaded.notes,
        })
    }

    /// Two demo backends, already running, behind one listener.
    ///
    /// # Errors
    /// The host refuses the demo backends.
    pub(super) fn quickstart(paths: &Paths) -> anyhow::Result<Self> {
        let backends = demo::start().context("the quickstart's backends")?;
        Ok(Self {
            config: Config::quickstart(&backends, paths.socket()),
            path: None,
            directory: PathBuf::new(),
            digest: None,
            warnings: Vec::new(),
            notes: ReadingNotes::default(),
        })
    }

    /// What the command line says wins over the config.
    pub(super) fn override_directories(&mut self, overridden: &Overridden) {
        if let Some(directory) = &overridden.run_dir {
            self.config.admin.socket = Paths::socket_in(directory);
        }
        if let Some(directory) = &overridden.state_dir {
            self.config.state.dir.clone_from(directory);
        }
    }

    /// What to try first, for the quickstart.
    pub(super) fn invitation(&self) -> Option<String> {
        if self.path.is_some() {
            return None;
        }
        let lb = std::env::current_exe().map_or_else(|_| "lb".to_owned(), |path| path.display().to_string());
        let socket = self.config.admin.socket.display();
        let listener = self.config.listeners.values().flat_map(|listener| &listener.bind).next()?;
        let metrics = self.config.admin.http?;
        Some(format!(
            "Two demo backends stand behind http://{listener}. Try, in another terminal:\n\
             \n  curl http://{listener}               twice: two backends answer\n  \
             curl http://{metrics}/metrics\n  \
             {lb} status --admin {socket}\n  \
             {lb} show workers --admin {socket}\n\
             \nCtrl-C ends it. Your own config: {lb} run --config FILE\n"
        ))
    }
}
