//! What is shown of what runs, and how it differs from its file.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{super::history::History, FILE_LOOK, Live};
use crate::{
    admin::{View, changes::Etag},
    config::{self, Digest},
};

impl Live {
    /// Shows what runs.
    pub(super) fn show(&mut self) {
        let drift = self.drift();
        let view = self.views.now();
        let history = self.history.as_ref();
        self.views.replace(View {
            config: Arc::new(self.plan.config.clone()),
            config_path: self.plan.path.clone(),
            config_digest: self.plan.digest.map(|digest| digest.to_string()),
            etag: Etag::from(self.fingerprint),
            warnings: self.warnings.clone(),
            names: self.names.show(),
            certificates: self.certificates.views(&self.staples),
            generations: history.map(History::views).unwrap_or_default(),
            overrides: history.map(History::override_views).unwrap_or_default(),
            degraded: self.degraded.clone(),
            drift,
            ..(*view).clone()
        });
    }

    pub(super) fn show_names(&self) {
        self.views.replace(View { names: self.names.show(), ..(*self.views.now()).clone() });
    }

    /// How the config's file differs from what runs, where it does.
    fn drift(&mut self) -> Option<String> {
        let path = self.plan.path.as_deref()?;
        let shown = path.display();
        match self.file.digest(path) {
            None => Some(format!("{shown} cannot be read")),
            digest if digest != self.plan.digest => {
                Some(format!("{shown} is not the file that was applied: lb diff says how it differs"))
            }
            _ if self.is_edited => {
                Some(format!("the config was changed since {shown} was applied: lb diff says how"))
            }
            _ => None,
        }
    }

    /// Looks at the file now and then.
    pub(super) fn look_at_file(&mut self, look_at: &mut Instant) {
        if Instant::now() < *look_at {
            return;
        }
        *look_at = Instant::now() + FILE_LOOK;
        let drift = self.drift();
        let view = self.views.now();
        if view.drift != drift {
            self.views.replace(View { drift, ..(*view).clone() });
        }
    }
}

/// A file, read again when it has become another one.
#[derive(Default)]
pub(in crate::control) struct SeenFile(Option<(PathBuf, Stamp, Digest)>);

/// What changes with a file: device, inode, length, times of the last change of content and inode in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::control) struct Stamp([i128; 5]);

/// A file that was changed within this before it was read may change again without a new stamp: clocks of file systems
/// are coarse.
const STAMP_COARSE: Duration = Duration::from_secs(2);

impl SeenFile {
    /// Of its bytes; `None`: it cannot be read.
    fn digest(&mut self, path: &Path) -> Option<Digest> {
        let stamp = Stamp::of(path);
        if let (Some((known, seen, digest)), Some(stamp)) = (&self.0, &stamp)
            && (&**known, seen) == (path, stamp)
        {
            return Some(*digest);
        }
        self.0 = None;
        let digest = Digest::of(config::read_text(path).ok()?.as_bytes());
        if let Some(stamp) = stamp.filter(Stamp::is_settled) {
            self.0 = Some((path.to_owned(), stamp, digest));
        }
        Some(digest)
    }
}

impl Stamp {
    pub(in crate::control) fn of(path: &Path) -> Option<Self> {
        let about = fs::metadata(path).ok()?;
        let time = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Some(Self([
            i128::from(about.dev()),
            i128::from(about.ino()),
            i128::from(about.len()),
            time(about.mtime(), about.mtime_nsec()),
            time(about.ctime(), about.ctime_nsec()),
        ]))
    }

    pub(in crate::control) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        let Self([.., mtime, ctime]) = *self;
        mtime.max(ctime) + (STAMP_COARSE.as_nanos() as i128) < now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fixture::TemporaryDirectory;

    #[test]
    fn a_file_that_changes_is_read_again() {
        let directory = TemporaryDirectory::new("seen-file");
        fs::create_dir_all(&*directory).unwrap();
        let path = directory.join("lb.toml");
        let mut file = SeenFile::default();
        assert_eq!(file.digest(&path), None);
        for text in ["one", "two", "three"] {
            fs::write(&path, text).unwrap();
            assert_eq!(file.digest(&path), Some(Digest::of(text.as_bytes())));
            assert_eq!(file.digest(&path), Some(Digest::of(text.as_bytes())));
        }
        // Long ago, so that its stamp can be relied on: then it is not read twice, and another file is another one.
        let long_ago = |path: &Path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
        };
        long_ago(&path);
        let stamp = Stamp::of(&path).unwrap();
        file.0 = Some((path.clone(), stamp, Digest::of(b"remembered")));
        assert_eq!(file.digest(&path), Some(Digest::of(b"remembered")));
        let other = directory.join("other");
        fs::write(&other, "four!").unwrap();
        long_ago(&other);
        fs::rename(&other, &path).unwrap();
        assert_eq!(file.digest(&path), Some(Digest::of(b"four!")));
        fs::remove_file(&path).unwrap();
        assert_eq!(file.digest(&path), None);
    }
}
