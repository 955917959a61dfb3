//! `setup`: makes a bare machine able to build and test. Installs as root, else prints the commands.

use std::{
    collections::HashSet,
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    machine::{self, bpf_compiler, has_bpf_linker, is_root, program},
    needs::{Apt, BpfFacts, Facts, Group, Need, Step, plan},
    peers::PeerFacts,
    wheels::{CHECKERS, GRPC, HTTP2, PEERS, SCANNERS, WheelFacts},
    workspace::{Workspace, forget_build_settings, run},
};

/// `setup [--bench]`.
pub(crate) fn verb(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let mut groups = vec![Group::Build, Group::Bpf, Group::Test, Group::Machine, Group::Fuzz];
    for argument in arguments {
        match argument.as_str() {
            "--bench" => groups.extend([Group::Bench, Group::Peers]),
            other => bail!("setup takes --bench, not `{other}`"),
        }
    }
    ensure(workspace, &groups)?;
    println!("setup: everything is there");
    Ok(ExitCode::SUCCESS)
}

/// Sees to it that the needs of these groups are met. Says nothing if they are.
///
/// # Errors
/// Something is missing and could not be installed; the commands that would do it were printed.
pub(crate) fn ensure(workspace: &Workspace, groups: &[Group]) -> Result<()> {
    let mut facts = look(workspace, groups);
    if plan(&facts).is_empty() {
        return Ok(());
    }
    for need in &facts.missing {
        eprintln!("setup: missing: {}", need.describe());
    }
    if let Some(bpf) = &facts.bpf {
        if bpf.compiler.is_none() {
            eprintln!("setup: missing: a compiler for BPF (builds the kernel half)");
        }
        if !bpf.linker {
            eprintln!("setup: missing: bpf-linker {} (links it)", machine::LINKER_VERSION);
        }
    }
    if let Some(peers) = &facts.peers {
        for missing in peers.missing() {
            eprintln!("setup: missing: {missing}");
        }
    }
    for wheels in &facts.wheels.missing {
        eprintln!("setup: missing: {}", wheels.describe());
    }
    if program("apt-get").is_some() {
        // Packages are in question only if they would help were all of them on offer.
        facts.apt = Some(Apt { rustc_web: true, llvm: true });
        if plan(&facts).iter().any(Step::needs_root) {
            if is_root() {
                eprintln!("setup: apt-get update");
                run(workspace.command("apt-get").args(["update", "-q"]))?;
            }
            facts.apt = Some(offered(workspace));
        }
    }
    carry_out(workspace, &plan(&facts))?;
    let left = plan(&look(workspace, groups));
    if !left.is_empty() {
        bail!("still missing after installation:\n{}", lines(&left));
    }
    Ok(())
}

/// Cheap: no package tool is asked. Whether apt can help is found out only when something is missing.
fn look(workspace: &Workspace, groups: &[Group]) -> Facts {
    let bpf = groups.contains(&Group::Bpf).then(|| {
        let linker = has_bpf_linker();
        BpfFacts {
            compiler: bpf_compiler(),
            linker,
            llvm: if linker { None } else { machine::llvm() },
            rustup: program("rustup").is_some(),
        }
    });
    let peers = groups.contains(&Group::Peers).then(|| PeerFacts::look(workspace));
    let wheels = WheelFacts::look(
        workspace,
        [
            (Group::Test, &CHECKERS),
            (Group::Test, &GRPC),
            (Group::Test, &HTTP2),
            (Group::Test, &SCANNERS),
            (Group::Peers, &PEERS),
        ]
        .into_iter()
        .filter(|(group, _)| groups.contains(group))
        .map(|(_, wheels)| wheels),
    );
    Facts { missing: Need::missing(groups), bpf, peers, wheels, apt: None }
}

/// What the package lists offer of the BPF toolchain.
fn offered(workspace: &Workspace) -> Apt {
    let candidate = |package: &str| {
        let mut policy = workspace.command("apt-cache");
        let text = crate::workspace::output(policy.env("LC_ALL", "C").args(["policy", package]))?;
        candidate_version(&text)
    };
    let new_enough = |version: String| machine::is_new_enough(&version);
    Apt {
        rustc_web: candidate("rustc-web").is_some_and(new_enough)
            && candidate("libstd-rust-web-dev-bpf").is_some_and(new_enough),
        llvm: candidate("llvm-22-dev").is_some(),
    }
}

/// `Candidate:` of `apt-cache policy`.
fn candidate_version(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

fn carry_out(workspace: &Workspace, steps: &[Step]) -> Result<()> {
    let by_hand = steps.iter().any(|step| matches!(step, Step::ByHand(_)));
    if by_hand || (!is_root() && steps.iter().any(Step::needs_root)) {
        let who = if by_hand {
            "this has to be done by hand"
        } else {
            "not root; run this as root, after `apt-get update`"
        };
        bail!("{who}:\n{}", lines(steps));
    }
    for step in steps {
        eprintln!("setup: {}", step.line());
        match step {
            Step::Packages(packages) => install(workspace, step, packages)?,
            Step::Linker { .. } | Step::Nightly | Step::Peer(_) | Step::Wheels(_) => {
                run(&mut command(workspace, step))?;
            }
            Step::ByHand(_) => {}
        }
    }
    Ok(())
}

/// Installs packages; a server among them is neither started now nor at the next boot.
fn install(workspace: &Workspace, step: &Step, packages: &[&'static str]) -> Result<()> {
    let quiet = NoServices::declare(Path::new("/usr/sbin/policy-rc.d"))?;
    let units = units();
    run(&mut command(workspace, step))?;
    drop(quiet);
    for name in ["nginx", "haproxy"] {
        let is_ours = packages.iter().any(|package| package.starts_with(name));
        if is_ours && !units.contains(name) {
            eprintln!("setup: {name} is not to start at boot");
            run(workspace.command("update-rc.d").args([name, "disable"]))?;
            if program("systemctl").is_some() {
                run(workspace.command("systemctl").args(["disable", "--quiet", name]))?;
            }
        }
    }
    Ok(())
}

/// Names of the installed service units: what was there before stays as it is.
fn units() -> HashSet<String> {
    ["/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system"]
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".service")?.to_owned()))
        .collect()
}

/// What carries a step out.
pub(crate) fn command(workspace: &Workspace, step: &Step) -> Command {
    let (environment, words) = step.command();
    let mut command = match words[0].as_str() {
        "cargo" => workspace.cargo(),
        other => workspace.command(other),
    };
    forget_build_settings(&mut command);
    command.args(&words[1..]).envs(environment);
    command
}

fn lines(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("  {}", step.line())).collect::<Vec<_>>().join("\n")
}

/// While it lives, packages start no services: Debian's policy-rc.d says no (101, "forbidden by policy").
///
/// A policy that somebody else made is left alone and obeyed.
/// Source: Debian `invoke-rc.d`, README.policy-rc.d.
#[derive(Debug)]
struct NoServices<'a> {
    file: Option<&'a Path>,
}

const POLICY: &str =
    "#!/bin/sh\n# Made by `cargo xtask setup` while it installs packages; safe to delete.\nexit 101\n";

impl<'a> NoServices<'a> {
    fn declare(file: &'a Path) -> Result<Self> {
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(file);
        match opened {
            Ok(mut opened) => {
                let this = Self { file: Some(file) };
                opened.write_all(POLICY.as_bytes()).with_context(|| format!("write {}", file.display()))?;
                // The umask may have taken bits away.
                opened.set_permissions(fs::Permissions::from_mode(0o755))?;
                Ok(this)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // One of ours is left from a run that was killed.
                let ours = fs::read_to_string(file).is_ok_and(|text| text == POLICY);
                Ok(Self { file: ours.then_some(file) })
            }
            Err(error) => Err(error).with_context(|| format!("create {}", file.display())),
        }
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file
            && let Err(error) = fs::remove_file(file)
        {
            eprintln!("setup: cannot remove {}: {error}", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_is_read_from_policy() {
        let policy =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate_version(policy).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(candidate_version("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_version(""), None);
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
        drop(fs::remove_file(&path));
        path
    }

    #[test]
    fn policy_is_there_only_while_we_install() {
        let file = scratch("policy");
        let policy = NoServices::declare(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(Command::new("sh").arg(&file).status().unwrap().code(), Some(101));
        drop(policy);
        assert!(!file.exists());
    }

    #[test]
    fn a_foreign_policy_is_left_alone_and_a_leftover_of_ours_is_not() {
        let file = scratch("foreign");
        fs::write(&file, "#!/bin/sh\nexit 0\n").unwrap();
        drop(NoServices::declare(&file).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "#!/bin/sh\nexit 0\n");
        fs::write(&file, POLICY).unwrap();
        drop(NoServices::declare(&file).unwrap());
        assert!(!file.exists());
    }
}
