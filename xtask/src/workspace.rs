//! Where we are, and starting other programs from here.
//!
//! `cargo run` leaves variables behind that would steer the cargo we start ourselves; they are taken away here.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// This checkout and where cargo builds it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Directory of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, whoever chose it.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds both from how cargo started us.
    ///
    /// The target directory is the one this program lies in: a config file may have moved it, and asking cargo
    /// would cost a start of its own.
    pub(crate) fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).parent().context("xtask lies in no workspace")?.to_path_buf();
        let program = env::current_exe().context("current_exe")?;
        let target = program.ancestors().nth(2).context("xtask lies in no target directory")?.to_path_buf();
        Ok(Self { root, target })
    }

    /// The object that `lb` embeds. Fixed, because lb's build script looks there and knows no target directory.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.root.join("target/bpf/lb.o")
    }

    /// A program built by cargo; `profile` is `debug` or `release`.
    pub(crate) fn built(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(profile).join(name)
    }

    /// The cargo that runs us, on the same toolchain.
    pub(crate) fn cargo(&self) -> Command {
        self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// Any program, in the root directory, without what `cargo run` told us alone, and with an empty stdin.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_of_cargo_run) {
                command.env_remove(name);
            }
        }
        if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
            match without(&paths, &[self.target.clone(), rustup_home()]) {
                Some(kept) => command.env("LD_LIBRARY_PATH", kept),
                None => command.env_remove("LD_LIBRARY_PATH"),
            };
        }
        command
    }
}

/// Runs to the end; anything but success is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Standard output of a command that succeeds; `None` where it is not there or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Takes away whatever may steer a build from outside: flags, wrappers, profiles, target directories.
pub(crate) fn forget_build_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_build_setting) {
            command.env_remove(name);
        }
    }
}

/// Cargo's home, where installed programs lie in `bin`.
pub(crate) fn cargo_home() -> PathBuf {
    home_of("CARGO_HOME", ".cargo")
}

/// Rustup's home, where toolchains lie.
pub(crate) fn rustup_home() -> PathBuf {
    home_of("RUSTUP_HOME", ".rustup")
}

fn home_of(variable: &str, below_home: &str) -> PathBuf {
    env::var_os(variable).map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(below_home),
        PathBuf::from,
    )
}

/// Set by `cargo run` for the program it starts, about that program.
fn is_of_cargo_run(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&name)
}

fn is_build_setting(name: &str) -> bool {
    const PREFIXES: [&str; 6] =
        ["RUSTC", "RUSTDOC", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PROFILE_", "CARGO_UNSTABLE_"];
    const NAMES: [&str; 4] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_INCREMENTAL", "CARGO"];
    name != "CARGO_BUILD_JOBS"
        && (PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name))
}

/// A path list without the entries beneath any of `roots`; `None` if nothing is left.
fn without(paths: &OsStr, roots: &[PathBuf]) -> Option<OsString> {
    let kept: Vec<PathBuf> = env::split_paths(paths)
        .filter(|path| !path.as_os_str().is_empty() && !roots.iter().any(|root| path.starts_with(root)))
        .collect();
    if kept.is_empty() { None } else { env::join_paths(kept).ok() }
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_run_sets_is_told_from_what_a_person_sets() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "OUT_DIR"] {
            assert!(is_of_cargo_run(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_TERM_COLOR", "PATH"] {
            assert!(!is_of_cargo_run(name), "{name}");
        }
    }

    #[test]
    fn build_settings_are_known_and_the_rest_is_kept() {
        for name in [
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            "CARGO_PROFILE_RELEASE_LTO",
        ] {
            assert!(is_build_setting(name), "{name}");
        }
        for name in
            ["CARGO_HOME", "CARGO_BUILD_JOBS", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "RUST_LOG"]
        {
            assert!(!is_build_setting(name), "{name}");
        }
    }

    #[test]
    fn library_paths_of_cargo_go_and_others_stay() {
        let roots = [PathBuf::from("/t"), PathBuf::from("/h/.rustup")];
        let list = OsStr::new("/t/debug/deps:/opt/lib:/h/.rustup/toolchains/x/lib");
        assert_eq!(without(list, &roots), Some("/opt/lib".into()));
        assert_eq!(without(OsStr::new("/t/debug:"), &roots), None);
    }
}
