//! `lb detach`: takes our programs off the interfaces and our pins out of bpffs.

use std::{fs, io, path::Path};

use lb_abi::names;

use super::{
    error::{Error, Result},
    maps::SHAPES,
    pins::{LINK_PREFIX, interface_of, remove_link},
    probes,
};

/// What a detach did, in order, each a line for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Detached {
    /// Interfaces whose program went.
    pub interfaces: Vec<String>,
    /// Maps whose pin went; the kernel frees them when the last process that has them open ends.
    pub maps: Vec<String>,
    /// Files in the directory that are not ours; they and the directory were left.
    pub left: Vec<String>,
}

/// Removes every link, then every map, then the directory if it may be removed. What is not there is not missed.
///
/// # Errors
/// The first file that cannot be removed, or a program that does not leave its interface within two seconds;
/// what was removed before stays removed.
pub fn detach(dir: &Path) -> Result<Detached> {
    let mut detached = Detached::default();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(detached),
        Err(error) => return Err(Error::file("readdir", dir)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("readdir", dir))?;
        found.push(entry.file_name().to_string_lossy().into_owned());
    }
    found.sort_unstable();
    // Programs first: none may run on maps that are going.
    for name in found.iter().filter(|name| name.starts_with(LINK_PREFIX)) {
        let interface = interface_of(name);
        remove_link(&dir.join(name), &interface)?;
        detached.interfaces.push(interface);
    }
    if !found.is_empty() {
        probes::remove_left()?;
    }
    // META last: with it gone, nothing says which version the rest is of.
    let is_map = |name: &&String| SHAPES.iter().any(|shape| shape.name == **name);
    let (meta, others): (Vec<_>, Vec<_>) =
        found.iter().filter(is_map).partition(|name| *name == names::MAP_META);
    for name in others.into_iter().chain(meta) {
        remove(&dir.join(name))?;
        detached.maps.push(name.clone());
    }
    detached.left = found
        .into_iter()
        .filter(|name| !name.starts_with(LINK_PREFIX) && SHAPES.iter().all(|shape| shape.name != *name))
        .collect();
    if detached.left.is_empty() {
        match fs::remove_dir(dir) {
            // The directory was made for us by root, in one that is not ours: an empty one holds nothing.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            removed => removed.map_err(Error::file("rmdir", dir))?,
        }
    }
    Ok(detached)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("unlink", path)(error)),
        _ => Ok(()),
    }
}
