//! Packages of Debian, downloaded and unpacked, never installed: a kernel here is data, and an emulator may not
//! push another package out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::{
    machine::{is_root, program},
    workspace::{Workspace, output, run},
};

/// A stable line of kernels, as Debian packages them for virtual machines.
#[derive(Debug)]
pub(crate) struct Series {
    /// Such as `6.1`.
    pub(crate) name: &'static str,
}

/// Modules that the tests need, in the order in which they can be loaded. What a kernel has built in is no file.
const MODULES: [&str; 20] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "llc",
    "stp",
    "bridge",
    "garp",
    "mrp",
    "8021q",
    // The kernel's TLS, and the ciphers that it would have modprobe load.
    "tls",
    "crypto_null",
    "ctr",
    "gf128mul",
    "ghash-generic",
    "gcm",
    "libchacha",
    "chacha_generic",
    "libpoly1305",
    "poly1305_generic",
    "chacha20poly1305",
];

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) version: String,
    /// What a boot loader loads.
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

/// The kernel of a series that lies below `place`, else the newest that apt offers.
///
/// # Errors
/// apt has none, or it cannot be had.
pub(crate) fn kernel(workspace: &Workspace, place: &Path, series: &Series) -> Result<Kernel> {
    let root = place.join(series.name);
    if !root.exists() {
        let package = with_lists(workspace, || newest(workspace, series))
            .with_context(|| format!("apt offers no linux-image-{}.*-cloud-amd64", series.name))?;
        println!("vmtest: downloading {package}");
        let debs = fresh(&place.join("debs"))?;
        download(workspace, &debs, &[&package])?;
        unpack(workspace, &debs, &root)?;
    }
    let boot = root.join("boot");
    let version = fs::read_dir(&boot)
        .with_context(|| format!("read {}", boot.display()))?
        .flatten()
        .find_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
        .with_context(|| format!("no kernel in {}", boot.display()))?;
    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|path| root.join(path).join(&version).join("kernel"))
        .into_iter()
        .find(|path| path.is_dir())
        .with_context(|| format!("no modules in {}", root.display()))?;
    Ok(Kernel { image: boot.join(format!("vmlinuz-{version}")), version, modules })
}

impl Kernel {
    /// Puts the modules into an archive as `/modules/NN-NAME.ko`, so that sorted by name they load.
    pub(crate) fn add_modules(&self, workspace: &Workspace, archive: &mut Archive) -> Result<()> {
        archive.directory("modules");
        for (number, name) in MODULES.iter().enumerate() {
            let Some(path) = find(&self.modules, name) else { continue };
            let content = match path.extension() {
                Some(extension) if extension == "xz" => {
                    let mut xz = workspace.command("xz");
                    let read = xz.args(["--decompress", "--stdout"]).arg(&path).output();
                    let read = read.with_context(|| format!("xz {}", path.display()))?;
                    if !read.status.success() {
                        bail!("xz {}: {}", path.display(), String::from_utf8_lossy(&read.stderr));
                    }
                    read.stdout
                }
                _ => fs::read(&path).with_context(|| format!("read {}", path.display()))?,
            };
            archive.file(&format!("modules/{number:02}-{name}.ko"), 0o644, content);
        }
        Ok(())
    }
}

/// The file of a module, whether compressed or not.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let mut below = Vec::new();
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        let file = entry.file_name();
        if path.is_dir() {
            below.push(path);
        } else if file
            .to_str()
            .is_some_and(|file| [format!("{name}.ko"), format!("{name}.ko.xz")].contains(&file.to_owned()))
        {
            return Some(path);
        }
    }
    below.iter().find_map(|directory| find(directory, name))
}

/// Unpacks packages, with all that they depend on and this machine does not have, into `root`.
///
/// # Errors
/// They cannot be had.
pub(crate) fn unpacked(
    workspace: &Workspace,
    place: &Path,
    name: &str,
    packages: &[&str],
) -> Result<PathBuf> {
    let root = place.join(name);
    if !root.exists() {
        println!("vmtest: downloading {}", packages.join(" "));
        let debs = fresh(&place.join("debs"))?;
        with_lists(workspace, || download_with_dependencies(workspace, &debs, packages).ok())
            .with_context(|| format!("apt cannot download {}", packages.join(" ")))?;
        unpack(workspace, &debs, &root)?;
    }
    Ok(root)
}

/// Tries twice: with the package lists as they are, and, as root, with new ones.
fn with_lists<T>(workspace: &Workspace, attempt: impl Fn() -> Option<T>) -> Result<T> {
    if program("apt-get").is_none() {
        bail!("kernels come from Debian's packages, and there is no apt-get here");
    }
    if let Some(found) = attempt() {
        return Ok(found);
    }
    if !is_root() {
        bail!("not in apt's package lists; as root, `apt-get update` renews them");
    }
    run(workspace.command("apt-get").args(["update", "-q"]))?;
    attempt().context("not in apt's package lists")
}

fn newest(workspace: &Workspace, series: &Series) -> Option<String> {
    let mut search = workspace.command("apt-cache");
    let pattern = format!("^linux-image-{}\\.", series.name.replace('.', "\\."));
    let text = output(search.args(["search", "--names-only", &pattern]))?;
    newest_of(&text, series.name)
}

/// From lines as `apt-cache search` prints them: `linux-image-6.1.0-50-cloud-amd64 - Linux 6.1 for x86-64 cloud`.
fn newest_of(text: &str, series: &str) -> Option<String> {
    let number = |package: &str| {
        let middle = package.strip_prefix("linux-image-")?.strip_prefix(series)?.strip_prefix('.')?;
        let middle = middle.strip_suffix("-cloud-amd64")?;
        // `0-50` of 6.1, `117+deb12` or `117` of later ones.
        let numbers = middle.split_once('+').map_or(middle, |(numbers, _)| numbers);
        numbers.split('-').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    };
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.filter_map(|name| Some((number(name)?, name))).max().map(|(_, name)| name.to_owned())
}

fn download(workspace: &Workspace, debs: &Path, packages: &[&str]) -> Result<()> {
    let mut apt = workspace.command("apt-get");
    // Unsandboxed as root, it would say so every time: the directory is not user _apt's.
    apt.args(["download", "-q", "-o", "APT::Sandbox::User=root"]).args(packages).current_dir(debs);
    run(apt.stdout(std::process::Stdio::null()))
}

fn download_with_dependencies(workspace: &Workspace, debs: &Path, packages: &[&str]) -> Result<()> {
    fs::create_dir_all(debs.join("partial")).with_context(|| format!("create in {}", debs.display()))?;
    let mut apt = workspace.command("apt-get");
    apt.args(["install", "--download-only", "--yes", "-q", "--no-install-recommends"]);
    // Nothing is installed, so no lock is needed, nor root.
    apt.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o"]);
    apt.arg(format!("Dir::Cache::archives={}", debs.display())).args(packages);
    run(apt.stdout(std::process::Stdio::null()))
}

/// An empty directory.
fn fresh(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    Ok(path.to_owned())
}

/// Unpacks every package of a directory into `root`, which is there whole or not at all.
fn unpack(workspace: &Workspace, debs: &Path, root: &Path) -> Result<()> {
    let half = fresh(&root.with_extension("half"))?;
    let mut count = 0;
    for entry in fs::read_dir(debs).with_context(|| format!("read {}", debs.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(workspace.command("dpkg-deb").arg("-x").arg(&path).arg(&half))?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("apt downloaded nothing");
    }
    fs::remove_dir_all(debs).with_context(|| format!("remove {}", debs.display()))?;
    fs::rename(&half, root).with_context(|| format!("rename to {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_chosen_by_number_and_nothing_else_counts() {
        let list = "linux-image-6.1.0-9-cloud-amd64 - Linux 6.1\n\
            linux-image-6.1.0-50-cloud-amd64 - Linux 6.1 for x86-64 cloud (signed)\n\
            linux-image-6.1.0-51-cloud-amd64-unsigned - Linux 6.1\n\
            linux-image-6.1.0-51-cloud-amd64-dbg - Debug symbols\n\
            linux-image-6.1.0-52-rt-amd64 - Linux 6.1 with PREEMPT_RT\n\
            linux-image-6.12.99+deb12-cloud-amd64 - Linux 6.12\n\
            linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12\n\
            linux-image-6.12-cloud-amd64 - Linux 6.12 (meta-package)\n";
        assert_eq!(newest_of(list, "6.1").as_deref(), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(newest_of(list, "6.12").as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(
            newest_of("linux-image-6.12.9-cloud-amd64 - x\n", "6.12").as_deref(),
            Some("linux-image-6.12.9-cloud-amd64")
        );
        assert_eq!(newest_of(list, "6.18"), None);
        assert_eq!(newest_of("", "6.1"), None);
    }
}
