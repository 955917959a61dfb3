//! Which program may be upgraded to: what starts from here has our capabilities, and all our sockets.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    process::geteuid,
    thread::{CapabilitySet, capabilities},
};

use crate::sys::owner;

/// So much of two programs is compared at once.
const CHUNK: usize = 256 << 10;

/// What the kernel adds to the name of a program whose file was replaced.
const DELETED: &str = " (deleted)";

/// The program that this process is of, as it lies there now: a package may have replaced it.
///
/// # Errors
/// The kernel does not tell.
pub fn own() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(DELETED).map_or_else(|| path.clone(), PathBuf::from))
}

/// Whether `path` may be started: absolute, a program, and nobody's to change who has less than we have. The path that
/// it really has.
///
/// # Errors
/// Why not, with the path.
pub fn check(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("{shown}: must be an absolute path"));
    }
    let whole = path.canonicalize().map_err(|error| format!("{shown}: {error}"))?;
    let metadata = fs::metadata(&whole).map_err(|error| format!("{shown}: {error}"))?;
    if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
        return Err(format!("{shown}: is no program"));
    }
    if is_privileged() {
        let parts: Vec<&Path> = whole.ancestors().collect();
        // From the root on: the first that is not root's is the one to say.
        let refused = |error: io::Error| {
            format!("{error}: only a program of root's, which nobody else may change, is started from here")
        };
        parts.into_iter().rev().try_for_each(owner::is_roots).map_err(refused)?;
    } else if ![0, geteuid().as_raw()].contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return Err(format!("{shown}: must be your own or root's, and nobody else's to change"));
    }
    Ok(whole)
}

/// Whether `path` is another program than that of this process: another file, and something else in it.
///
/// # Errors
/// One of the two cannot be read.
pub fn is_other(path: &Path) -> io::Result<bool> {
    // The file that was started, also where another one has its name by now.
    let (own, other) = (File::open("/proc/self/exe")?, File::open(path)?);
    let (first, second) = (own.metadata()?, other.metadata()?);
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return Ok(false);
    }
    if first.len() != second.len() {
        return Ok(true);
    }
    let (mut own, mut other) = (BufReader::with_capacity(CHUNK, own), BufReader::with_capacity(CHUNK, other));
    loop {
        let (first, second) = (own.fill_buf()?, other.fill_buf()?);
        let both = first.len().min(second.len());
        if first[..both] != second[..both] || first.is_empty() != second.is_empty() {
            return Ok(true);
        }
        if both == 0 {
            return Ok(false);
        }
        own.consume(both);
        other.consume(both);
    }
}

/// Whether there is anything that a program would get from us.
fn is_privileged() -> bool {
    geteuid().is_root() || capabilities(None).is_ok_and(|sets| sets.permitted != CapabilitySet::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn another_program_is_one_that_has_something_else_in_it() {
        let directory = std::env::temp_dir().join(format!("lb-other-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let program = directory.join("lb");
        assert!(!is_other(&own().unwrap()).unwrap());
        fs::copy(own().unwrap(), &program).unwrap();
        assert!(!is_other(&program).unwrap(), "the same, installed once more");
        let mut bytes = fs::read(&program).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&program, &bytes).unwrap();
        assert!(is_other(&program).unwrap(), "one byte, and as long");
        fs::write(&program, b"#!/bin/sh\n").unwrap();
        assert!(is_other(&program).unwrap());
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(is_other(&program).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_what_nobody_else_may_change_is_started() {
        let directory = std::env::temp_dir().join(format!("lb-binary-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.join("lb");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let mode = |mode| fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let refused = |path: &Path| check(path).unwrap_err();
        mode(0o644);
        assert!(refused(&program).ends_with("is no program"));
        mode(0o755);
        assert_eq!(check(&program).unwrap(), program.canonicalize().unwrap());
        mode(0o775);
        let said = refused(&program);
        assert!(said.contains(program.to_str().unwrap()) && said.contains("nobody else"), "{said}");
        if geteuid().is_root() {
            mode(0o755);
            std::os::unix::fs::chown(&program, Some(65_534), None).unwrap();
            assert!(refused(&program).contains("is not root's"));
        }
        fs::remove_dir_all(&directory).unwrap();
        assert!(refused(&program).contains("No such file"));
        assert!(refused(Path::new("lb")).contains("absolute"));
        assert!(own().unwrap().is_absolute());
    }
}
