//! Whose a file is.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// Write for group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Whoever may write to such a directory may not replace what others have there.
const STICKY: u32 = 0o1000;

/// Whether a file or directory is root's, and nobody else may change it.
///
/// # Errors
/// It is not, or a link; the text has the path.
pub fn is_roots(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let is_sticky = metadata.is_dir() && metadata.mode() & STICKY != 0;
    let what = match (metadata.uid(), metadata.mode() & OTHERS_WRITE) {
        _ if metadata.is_symlink() => "is a link",
        (0, 0) => return Ok(()),
        (0, _) if is_sticky => return Ok(()),
        (0, _) => "can be written to by others than its owner",
        _ => "is not root's",
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {what}", path.display())))
}
