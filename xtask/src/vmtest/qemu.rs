//! One virtual machine, from power to power off.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::debian;
use crate::{machine::program, workspace::Workspace};

const NAME: &str = "qemu-system-x86_64";
/// Below the unpacked package.
const LIBRARIES: [&str; 4] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib"];
const DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];
/// All that can be interpreted, but for a fifth level of page tables to walk.
const PROCESSOR: &str = "max,la57=off";
/// The guest's root file system lies in it, too.
const MEMORY: &str = "2G";
/// As many as the smallest machine of ours has. With one, no two cores would ever be in one program.
const CORES: &str = "2";

/// A qemu for x86-64: the one that is installed, else one that was unpacked.
#[derive(Debug)]
pub(crate) struct Emulator {
    program: PathBuf,
    unpacked: Option<PathBuf>,
}

impl Emulator {
    /// Finds it, or downloads it.
    pub(crate) fn find(workspace: &Workspace, place: &Path) -> Result<Self> {
        if let Some(program) = program(NAME) {
            return Ok(Self { program, unpacked: None });
        }
        let root = debian::unpacked(workspace, place, "qemu", &["qemu-system-x86"])?;
        Ok(Self { program: root.join("usr/bin").join(NAME), unpacked: Some(root) })
    }

    /// Boots a kernel with an initramfs; its serial console goes to `log`.
    ///
    /// # Errors
    /// The emulator fails, or the guest still runs after `limit` (it is ended then).
    pub(crate) fn boot(&self, kernel: &Path, initramfs: &Path, log: &Path, limit: Duration) -> Result<()> {
        let mut command = self.command();
        command
            // Interpreted everywhere: nested KVM is often there and broken, and the same guest everywhere is worth
            // more than the seconds.
            .args(["-accel", "tcg,thread=multi", "-cpu", PROCESSOR, "-smp", CORES, "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            // A panic ends the machine: reboot at once, which -no-reboot makes an exit. Nobody is to be kept out of it, and
            // what would do so is dear to interpret: every indirect call, for one.
            .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic mitigations=off"])
            .arg("-serial")
            .arg(format!("file:{}", log.display()))
            .stdin(Stdio::null());
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait().context("waiting for the emulator")? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().context("ending the emulator")?;
                child.wait().context("waiting for the emulator")?;
                bail!("the guest still ran after {} s", limit.as_secs());
            }
            thread::sleep(Duration::from_millis(100));
        };
        if !status.success() {
            bail!("the emulator failed ({status})");
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let Some(root) = &self.unpacked else { return command };
        let mut libraries: Vec<PathBuf> = LIBRARIES.iter().map(|path| root.join(path)).collect();
        libraries.extend(env::var_os("LD_LIBRARY_PATH").iter().flat_map(env::split_paths));
        command.env("LD_LIBRARY_PATH", env::join_paths(libraries).unwrap_or_else(|_| OsString::new()));
        for path in DATA {
            command.arg("-L").arg(root.join(path));
        }
        command
    }
}
