//! Where things lie when nobody says otherwise.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Default directories of this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Sockets.
    pub run_dir: PathBuf,
    /// What outlives the process.
    pub state_dir: PathBuf,
}

/// Name of the admin socket in the run directory.
const SOCKET: &str = "admin.sock";

impl Paths {
    /// `/run/lb` and `/var/lib/lb` for root, `$XDG_RUNTIME_DIR/lb` for others.
    pub fn of_this_user() -> Self {
        let uid = rustix::process::geteuid();
        let runtime_dir = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self::choose(uid.is_root(), uid.as_raw(), runtime_dir, env::temp_dir())
    }

    fn choose(is_root: bool, uid: u32, runtime_dir: Option<PathBuf>, temp_dir: PathBuf) -> Self {
        if is_root {
            return Self::system();
        }
        let run_dir = match runtime_dir.filter(|directory| directory.is_absolute()) {
            Some(directory) => directory.join("lb"),
            None => temp_dir.join(format!("lb-{uid}")),
        };
        Self { state_dir: run_dir.join("state"), run_dir }
    }

    /// Where the admin socket is.
    pub fn socket(&self) -> PathBuf {
        Self::socket_in(&self.run_dir)
    }

    /// The socket that a command asks when none is named: this user's own where a daemon of theirs made one (a
    /// quickstart), else the system's, for members of its group.
    pub fn socket_to_ask() -> PathBuf {
        let (own, system) = (Self::of_this_user().socket(), Self::system().socket());
        if own.exists() || !system.exists() { own } else { system }
    }

    /// Those of a daemon of the host.
    pub fn system() -> Self {
        Self { run_dir: "/run/lb".into(), state_dir: "/var/lib/lb".into() }
    }

    /// Where it is in a run directory of someone's choice.
    pub fn socket_in(run_dir: &Path) -> PathBuf {
        run_dir.join(SOCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depend_on_the_user() {
        let root = Paths::choose(true, 0, Some("/run/user/0".into()), "/tmp".into());
        assert_eq!(root.socket(), PathBuf::from("/run/lb/admin.sock"));
        let user = Paths::choose(false, 1000, Some("/run/user/1000".into()), "/tmp".into());
        assert_eq!(user.socket(), PathBuf::from("/run/user/1000/lb/admin.sock"));
        assert_eq!(user.state_dir, PathBuf::from("/run/user/1000/lb/state"));
        let bare = Paths::choose(false, 1000, Some("relative".into()), "/tmp".into());
        assert_eq!(bare.run_dir, PathBuf::from("/tmp/lb-1000"));
    }
}
