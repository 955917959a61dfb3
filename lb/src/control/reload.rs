//! SIGHUP: the config file, applied anew.

use std::{io, path::Path, thread};

use crate::{
    admin::changes::{Applied, Author, Changes, Edit, Wish},
    config,
};

/// Applies the file at `path` on a thread of its own, and says what came of it.
pub(super) fn reload(changes: &Changes, path: Option<&Path>) {
    let Some(path) = path else { return tracing::warn!("SIGHUP: the quickstart has no config file") };
    let (changes, path) = (changes.clone(), path.to_owned());
    let apply = move || match apply(&changes, &path) {
        Ok(Applied { generation, took_ms, warnings, .. }) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            tracing::info!(%generation, took_ms, path = %path.display(), "SIGHUP: the config file is applied");
        }
        Err(why) => tracing::error!(path = %path.display(), %why, "SIGHUP: nothing was changed"),
    };
    if let Err(error) = thread::Builder::new().name("lb-reload".into()).spawn(apply) {
        tracing::error!(%error, "SIGHUP: no thread to reload on");
    }
}

fn apply(changes: &Changes, path: &Path) -> Result<Applied, String> {
    let (path, text) = read(path).map_err(|error| error.to_string())?;
    let by = Author { by: "signal".into(), uid: None, pid: None };
    let wish = Wish { edit: Edit::File { path, text }, if_match: None, is_dry: false, by };
    changes.make_now(wish).map_err(|refusal| refusal.to_string())
}

/// The text of a config file, and its absolute path.
pub(super) fn read(path: &Path) -> io::Result<(std::path::PathBuf, String)> {
    let path = path.canonicalize()?;
    let text = config::read_text(&path).map_err(io::Error::other)?;
    Ok((path, text))
}
